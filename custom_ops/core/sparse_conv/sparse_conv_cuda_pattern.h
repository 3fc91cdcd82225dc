// Patterns of the CUDA kernels: what the host prepares. No CUDA needed.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PATTERN_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PATTERN_H_

#include "custom_ops/core/sparse_conv/sparse_conv.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  kSparseConvCudaForward = 0,
  kSparseConvCudaGradInput = 1,
} SparseConvCudaPurpose;

typedef struct {
  SparseConvCudaPurpose purpose;
  // "direct", "tf32" or "bf16". Null or empty: direct or tf32, whichever is
  // modelled to be faster.
  const char* kernel;
  // Images a call that the sizes of blocks are chosen for; 0 counts as 1. Any
  // number may come.
  int64_t batch;
  // For tests and tuning, 0: chosen by a model. Filters of a tile (16, 32, 64),
  // pixels of a block (64, 128, 192, 256), columns (1: shared patches, 2:
  // gathered).
  int tile_filters;
  int pixels;
  int columns;
} SparseConvCudaOptions;

typedef struct SparseConvCudaPattern SparseConvCudaPattern;

// Arguments as sparse_conv_pattern_create_int32's. `options` may be null. A
// pattern does not change and may be used by many threads.
SparseConvCode sparse_conv_cuda_pattern_create_int32(
    const SparseConvGeometry* geometry, const int32_t* positions,
    int64_t num_nonzeros, const SparseConvCudaOptions* options,
    SparseConvCudaPattern** pattern, SparseConvError* error);
SparseConvCode sparse_conv_cuda_pattern_create_int64(
    const SparseConvGeometry* geometry, const int64_t* positions,
    int64_t num_nonzeros, const SparseConvCudaOptions* options,
    SparseConvCudaPattern** pattern, SparseConvError* error);

void sparse_conv_cuda_pattern_free(SparseConvCudaPattern* pattern);  // or null

// What is copied to device memory, aligned to 16 bytes there: its size, a
// multiple of 16, and its contents, which live as long as the pattern. Weights
// are 0 in it.
int64_t sparse_conv_cuda_image_bytes(const SparseConvCudaPattern* pattern);
const void* sparse_conv_cuda_image(const SparseConvCudaPattern* pattern);

typedef struct {
  const char* kernel;  // "direct", "tf32" or "bf16"
  int tile_filters;    // of a tile; 1 for direct
  int is_gathered;     // 1: columns are gathered; 0: patches are shared
  int pixels;          // of a block, at most
  double useful;       // non-zeros / weights multiplied
  double cycles;       // modelled, of a multiprocessor, for options.batch
  int64_t blocks;      // of threads, for options.batch
} SparseConvCudaPlan;

void sparse_conv_cuda_pattern_plan(const SparseConvCudaPattern* pattern,
                                   SparseConvCudaPlan* plan);

#ifdef __cplusplus
}
#endif

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PATTERN_H_
