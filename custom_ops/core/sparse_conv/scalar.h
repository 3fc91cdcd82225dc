// Convolution and gradients by their definition, for every geometry and
// machine.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SCALAR_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SCALAR_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/pattern.h"

namespace sparse_conv {

// What happens to a sum.
struct Epilogue {
  const float* bias;  // [out_channels], or null
  bool relu;

  float operator()(float sum) const { return relu && sum < 0 ? 0 : sum; }
};

void ForwardScalar(const SparseConvPattern& pattern, const float* weights,
                   int64_t batch, const float* input, const Epilogue& epilogue,
                   float* output, const SparseConvPool* pool);

void GradInputScalar(const SparseConvPattern& pattern, const float* weights,
                     int64_t batch, const float* grad_output, float* grad_input,
                     const SparseConvPool* pool);

void GradValuesScalar(const SparseConvPattern& pattern, int64_t batch,
                      const float* input, const float* grad_output,
                      float* grad_values, const SparseConvPool* pool);

// Computes those of grad_values again that are not finite.
void GradNonFinite(const SparseConvPattern& pattern, int64_t batch,
                   const float* input, const float* grad_output,
                   float* grad_values, const SparseConvPool* pool);

void GradBias(const Geometry& geometry, int64_t batch, const float* grad_output,
              float* grad_bias, const SparseConvPool* pool);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SCALAR_H_
