// CUDA twins of ternary.h, which give the same bits. Plain C interface, no
// TensorFlow.
//
// All pointers but `tensors` and `options` are to device memory, also
// TernaryTensor::data; the list itself may be freed when a call returns. Calls
// only launch kernels on `stream`: they neither wait nor allocate, and may be
// captured into a graph. `workspace` has as many bytes as the function beside
// says, aligned to 16, and belongs to the call until the stream has passed it.
// Payloads of trits are aligned to 4 bytes. At most 2^24 workers.
//
// Scalers are floats or doubles, as `scaler_dtype` says (kTernaryFloat32 or
// kTernaryFloat64); floats lose nothing but for kTernaryFloat64 tensors.
//
// Needs compute capability 8.0.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_H_

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "custom_ops/core/ternary/ternary.h"

#ifdef __cplusplus
extern "C" {
#endif

int64_t ternary_cuda_scalers_workspace(const TernaryTensor* tensors,
                                       int num_tensors, int64_t bucket_size);

// ternary_scalers.
cudaError_t ternary_cuda_scalers(const TernaryTensor* tensors, int num_tensors,
                                 double clip_factor, int64_t bucket_size,
                                 TernaryDtype scaler_dtype, void* scalers,
                                 void* workspace, cudaStream_t stream);

// Of ternary_cuda_encode and ternary_cuda_decode.
int64_t ternary_cuda_codec_workspace(int num_tensors);

// ternary_encode.
cudaError_t ternary_cuda_encode(const TernaryTensor* tensors, int num_tensors,
                                const TernaryEncodeOptions* options,
                                TernaryDtype scaler_dtype,
                                const void* clip_levels, const void* scalers,
                                void* payload, int64_t* counts, void* workspace,
                                cudaStream_t stream);

// ternary_sum_trits.
cudaError_t ternary_cuda_sum_trits(const uint8_t* parts, int64_t groups,
                                   int64_t num_workers, int64_t* words,
                                   cudaStream_t stream);

// ternary_decode. Nobody waits for the guard word here, so what differs is a
// wrong one: all tensors become NaN. *guard is the number of workers found.
cudaError_t ternary_cuda_decode(const void* payload, TernaryLayout layout,
                                const TernaryTensor* tensors, int num_tensors,
                                int64_t bucket_size, int64_t num_workers,
                                TernaryDtype scaler_dtype, const void* scalers,
                                int64_t* guard, void* workspace,
                                cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_H_
