// Times on one core, in nanoseconds. Constants for AVX-512 were measured on Zen
// 4, those for AVX2 on Zen 3. Only ratios of times matter for choices.

#include "custom_ops/core/sparse_conv/cost_model.h"

#include <algorithm>
#include <cmath>

#include "custom_ops/core/sparse_conv/multiply_add_peak.h"

namespace sparse_conv {
namespace {

constexpr double kVector = 16;  // channels that conversions take together

double RoundUp(double value, double step) {
  return std::ceil(value / step) * step;
}

// Of images through conversions, padded channels included.
double Floats(const Geometry& g, int64_t batch) {
  const double in = static_cast<double>(g.height * g.width) *
                    RoundUp(static_cast<double>(g.in_channels), kVector);
  const double out = static_cast<double>(g.out_height * g.out_width) *
                     RoundUp(static_cast<double>(g.out_channels), kVector);
  return static_cast<double>(batch) * (in + out);
}

// --- Code for AVX-512, in cycles of a vector of 16 pixels --------------------

constexpr double kCyclesPerNs = 3.5;
constexpr double kTeam = 24;           // rows, on average
constexpr double kLoadCycles = 1.47;   // of a column: most cross a cache line
constexpr double kWeightLoads = 0.5;   // of a broadcast weight
constexpr double kSpillCycles = 3;     // of a sum, once a block
constexpr double kBlockColumns = 400;  // of a block
constexpr double kCodeFloats = 3.2;    // a nanosecond, through conversions
constexpr double kCallNs = 0.2e6;      // of a call, with what is cold then
// Code and weights beyond the second cache, brought once for so many vectors.
constexpr double kNonzeroBytes = 11;
constexpr double kNearBytes = 2 << 20;
constexpr double kFarBytes = 3;  // a nanosecond
constexpr double kFarVectors = 36;

double CodeMs(const Geometry& g, const Nonzeros& nonzeros, int64_t batch) {
  const double pixels = static_cast<double>(batch) * g.out_height * g.out_width;
  // Positions between rows of an image are computed too.
  const double vectors = pixels / 16 * 1.04;
  const double count = static_cast<double>(nonzeros.count);
  const double rows = std::max<double>(1, nonzeros.rows);
  const double columns = std::max<double>(1, nonzeros.columns);
  // A team's rows of one group share loads.
  const double shared =
      std::min({kTeam, rows, static_cast<double>(g.group_outputs())});
  const double density = std::min(1.0, count / (columns * rows));
  const double loads =
      rows / shared * columns * (1 - std::pow(1 - density, shared));
  const double products =
      std::max(count, kLoadCycles * loads + kWeightLoads * count);
  const double blocks = std::ceil(columns / kBlockColumns);
  const double spills = kSpillCycles * rows * blocks;
  const double bytes = count * kNonzeroBytes;
  const double far = bytes > kNearBytes
                         ? bytes / kFarBytes * std::ceil(vectors / kFarVectors)
                         : 0;
  return 1e-6 * (kCallNs + vectors * (products + spills) / kCyclesPerNs + far +
                 Floats(g, batch) / kCodeFloats);
}

// --- Lists, and code for AVX2 ------------------------------------------------

// Multiply-adds a nanosecond: 2 x 8 lanes a cycle at 3.2 GHz.
constexpr double kPeak = 50;
// Shares of the peak of the inner loops, their sums in registers.
constexpr double kCodeShare = 0.75;
constexpr double kListShare = 0.72;
constexpr double kScalarShare = 0.02;
// Floats a nanosecond through a conversion, and through memory where images
// are more than a cache holds.
constexpr double kConverted = 2.5;
constexpr double kStreamed = 1.5;
constexpr double kCacheFloats = 4 << 20;
// Multiply-adds of one sum that writing and reading it costs, once a block.
constexpr double kSpill = 4.5;
constexpr double kListColumns = 144;

double ListMs(const Geometry& g, const Choice& choice, const Nonzeros& nonzeros,
              int64_t batch) {
  const double pixels = static_cast<double>(batch) * g.out_height * g.out_width;
  const double products = pixels * static_cast<double>(nonzeros.count);
  if (choice.kernels == nullptr)
    return 1e-6 * products / (kPeak * kScalarShare);
  const double floats = Floats(g, batch);
  const double speed = floats > kCacheFloats ? kStreamed : kConverted;
  const double columns = static_cast<double>(g.kernel_size()) / g.out_channels;
  // A row's sums are written once a block of columns.
  const double blocks = std::max(1.0, columns / kListColumns);
  const double spills = pixels * g.out_channels * blocks * kSpill;
  const double share = choice.jit != nullptr ? kCodeShare : kListShare;
  return 1e-6 * (floats / speed + spills / kPeak + products / (kPeak * share));
}

// --- Dense -------------------------------------------------------------------

// Multiply-adds a nanosecond that oneDNN reaches at best, by what it has.
struct Dense {
  double kernel;    // of several taps
  double single;    // of one tap
  double narrow;    // few channels: less to reuse
  double streamed;  // floats a nanosecond
};
constexpr Dense kDenseAvx512 = {54, 45, 28, 6};
constexpr Dense kDenseWide = {115, 95, 28, 6};  // measured on Zen 5
constexpr Dense kDenseAvx2 = {46, 40, 25, 3};

// Layers of AlexNet, ResNet-50 and MobileNetV2 whose sparse convolution was
// slower than the dense one were modelled to be up to 1.4 times as fast.
constexpr double kMargin = 0.7;

}  // namespace

Nonzeros AtRandom(const Geometry& g, int64_t count) {
  return {count, g.kernel_size() / g.out_channels, g.out_channels};
}

double SparseMs(const Geometry& g, const Choice& choice,
                const Nonzeros& nonzeros, int64_t batch) {
  const bool wide = choice.jit != nullptr && choice.jit->lanes == 16;
  return wide ? CodeMs(g, nonzeros, batch) : ListMs(g, choice, nonzeros, batch);
}

double DenseMs(const Geometry& g, int64_t batch) {
  const Kernels* kernels = ActiveKernels();
  const bool wide = kernels != nullptr && kernels->lanes == 16;
  const Dense& dense = !wide            ? kDenseAvx2
                       : HasWideUnits() ? kDenseWide
                                        : kDenseAvx512;
  const bool single = g.filter_height == 1 && g.filter_width == 1;
  const int64_t least = std::min(g.group_channels(), g.group_outputs());
  const bool narrow = single ? least < 64 : g.groups > 1 && least < 8;
  const double speed = narrow   ? dense.narrow
                       : single ? dense.single
                                : dense.kernel;
  const double products = static_cast<double>(batch) * g.out_height *
                          g.out_width * static_cast<double>(g.kernel_size());
  const double floats =
      static_cast<double>(batch) * (g.input_size() + g.output_size());
  const double call = wide ? kCallNs : 0;
  return 1e-6 * (call + std::max(products / speed, floats / dense.streamed));
}

bool IsFaster(double sparse_ms, double dense_ms) {
  return sparse_ms < kMargin * dense_ms;
}

double BreakEven(const Geometry& g, const Choice& choice, int64_t batch) {
  const double dense = DenseMs(g, batch);
  const auto faster = [&](int64_t count) {
    return IsFaster(SparseMs(g, choice, AtRandom(g, count), batch), dense);
  };
  // Times grow with the count.
  int64_t below = 0;
  int64_t above = g.kernel_size() + 1;
  while (above - below > 1) {
    const int64_t middle = below + (above - below) / 2;
    (faster(middle) ? below : above) = middle;
  }
  return static_cast<double>(below) / static_cast<double>(g.kernel_size());
}

}  // namespace sparse_conv
