// In multiply-adds of one core per nanosecond. 2 x 8 lanes a cycle at 3.2 GHz
// are 51; AVX-512 on cores that issue 16 lanes a cycle the same. What the
// constants stand for was measured on Zen 3 (AVX2) and, for generated code with
// AVX-512, on Zen 4 by trial kernels; only ratios of times matter for choices.

#include "custom_ops/core/sparse_conv/cost_model.h"

#include <algorithm>

namespace sparse_conv {
namespace {

constexpr double kPeak = 50;

// Shares of the peak of the inner loops, their sums in registers.
constexpr double kCodeShare = 0.75;
constexpr double kListShare = 0.72;
constexpr double kScalarShare = 0.02;

// Shares of the peak that oneDNN reaches.
constexpr double kDenseShare = 0.93;
constexpr double kDenseShare1x1 = 0.80;
// Depthwise and narrow groups: oneDNN has less to reuse.
constexpr double kDenseShareNarrow = 0.25;

// Floats a nanosecond through a conversion, and through memory where images
// are more than a cache holds.
constexpr double kConverted = 2.5;
constexpr double kStreamed = 1.5;
constexpr double kCacheFloats = 4 << 20;

// Multiply-adds of one sum that writing and reading it costs.
constexpr double kSpill = 4.5;
// Planes of a block, and taps in them.
constexpr double kBlockColumns = 144;

}  // namespace

Cost SparseCost(const Geometry& g, const Choice& choice, int64_t num_nonzeros,
                int64_t batch) {
  const double images = static_cast<double>(batch);
  const double pixels = images * g.out_height * g.out_width;
  if (choice.kernels == nullptr) {
    return {0, 1e-6 * pixels / (kPeak * kScalarShare) * num_nonzeros};
  }
  const double floats = images * (g.input_size() + g.output_size());
  const double speed = floats > kCacheFloats ? kStreamed : kConverted;
  const double columns = static_cast<double>(g.kernel_size()) / g.out_channels;
  // A row's sums are written once a block of columns.
  const double blocks = std::max(1.0, columns / kBlockColumns);
  const double spills = pixels * g.out_channels * blocks * kSpill;
  const double share = choice.jit != nullptr ? kCodeShare : kListShare;
  return {1e-6 * (floats / speed + spills / kPeak),
          1e-6 * pixels * num_nonzeros / (kPeak * share)};
}

double DenseMs(const Geometry& g, int64_t batch) {
  const bool narrow = g.group_channels() < 8 || g.group_outputs() < 8;
  const bool single = g.filter_height == 1 && g.filter_width == 1;
  const double share = narrow   ? kDenseShareNarrow
                       : single ? kDenseShare1x1
                                : kDenseShare;
  const double products = static_cast<double>(batch) * g.out_height *
                          g.out_width * static_cast<double>(g.kernel_size());
  const double floats =
      static_cast<double>(batch) * (g.input_size() + g.output_size());
  // Never faster than its memory.
  const double memory = floats > kCacheFloats ? floats / (2 * kStreamed) : 0;
  return 1e-6 * std::max(products / (kPeak * share), memory);
}

}  // namespace sparse_conv
