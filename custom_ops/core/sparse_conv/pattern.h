// What stands behind the handles of sparse_conv.h.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/geometry.h"

namespace sparse_conv {

// A non-zero of one output channel.
struct Nonzero {
  int32_t i;  // tap
  int32_t j;
  int32_t channel;  // of the input, over all groups
  int32_t index;    // among the positions
};

// One activation, or none, with the bias in front: what happens to a sum.
struct Epilogue {
  const float* bias = nullptr;  // [out_channels]
  bool relu = false;

  float operator()(float sum) const { return relu && sum < 0 ? 0 : sum; }
};

}  // namespace sparse_conv

struct SparseConvPattern {
  sparse_conv::Geometry geometry;
  // The non-zeros of output channel o, in ascending positions:
  // nonzeros[rows[o]] to nonzeros[rows[o + 1]].
  std::vector<int64_t> rows;
  std::vector<sparse_conv::Nonzero> nonzeros;

  std::atomic<int64_t> references{1};
};

struct SparseConvValues {
  SparseConvPattern* pattern;  // one reference
  std::vector<float> weights;  // in the order of the positions

  std::atomic<int64_t> references{1};
};

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_
