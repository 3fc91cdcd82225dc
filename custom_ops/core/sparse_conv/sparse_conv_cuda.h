// CUDA twins of sparse_conv.h. Plain C interface, no TensorFlow.
//
// A pattern is made on the host from positions and geometry. It owns an image
// of what the kernels read; the caller copies that to device memory, once, and
// sets values there as often as they change. Calls launch kernels on
// `stream`: they neither wait nor allocate, and may be captured into a graph.
//
// Three kernels:
//
//   direct  float32 on CUDA cores, one multiplication a non-zero. Exact as the
//           CPU's: inputs meet weights only at positions.
//   tf32    tensor cores on dense tiles of 16, 32 or 64 filters by the columns
//           (tap, channel) that are live in them: sparsity by columns, rows and
//           blocks. Inputs and weights are rounded to TF32, to nearest with
//           ties away from zero; sums are float32. Departure: in a tile inputs
//           also meet zeros, so that NaN and infinity reach all its filters.
//   bf16    the same with bfloat16, to nearest even.
//
// Sums have an order of their own, which does not depend on the batch.
//
// Needs compute capability 8.0.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_H_

#include <cuda_runtime_api.h>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_pattern.h"

#ifdef __cplusplus
extern "C" {
#endif

// Puts weights [num_nonzeros], in the order of the positions, into `memory`,
// which holds a copy of the pattern's image. All pointers but `pattern` are to
// device memory from here on.
cudaError_t sparse_conv_cuda_set_values(const SparseConvCudaPattern* pattern,
                                        void* memory, const void* values,
                                        SparseConvDtype dtype,
                                        cudaStream_t stream);

// sparse_conv_forward, or, of a pattern for kSparseConvCudaGradInput,
// sparse_conv_grad_input: `input` is then grad_output and `output` grad_input,
// without bias and activation.
cudaError_t sparse_conv_cuda_convolve(const SparseConvCudaPattern* pattern,
                                      const void* memory, int64_t batch,
                                      const float* input, const float* bias,
                                      SparseConvActivation activation,
                                      float* output, cudaStream_t stream);

// Bytes of the workspace of sparse_conv_cuda_grad_values, aligned to 16, which
// belongs to the call until the stream has passed it.
int64_t sparse_conv_cuda_grad_values_workspace(
    const SparseConvCudaPattern* pattern, int64_t batch);

// sparse_conv_grad_values, of a pattern for kSparseConvCudaForward and
// "direct", whose values do not matter; float32 with sums of parts.
cudaError_t sparse_conv_cuda_grad_values(const SparseConvCudaPattern* pattern,
                                         const void* memory, int64_t batch,
                                         const float* input,
                                         const float* grad_output,
                                         float* grad_values, float* grad_bias,
                                         void* workspace, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_H_
