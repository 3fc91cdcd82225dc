// Two-dimensional convolution with a sparse kernel, and its gradients. Plain C
// interface, no TensorFlow.
//
//   output[n, y, x, o] = activation(bias[o] + sum over the non-zeros (i, j, c,
//       o) of w * input[n, y * stride + i * dilation - pad_top,
//                       x * stride + j * dilation - pad_left, c])
//
// A pattern holds what follows from the positions of the non-zeros and from the
// geometry: it is made once, shared by threads, and never changes. Values hold
// what follows from the weights: new weights in the same pattern are a copy and
// a permutation. Zeros are where the pattern has no position: a weight of 0 or
// NaN at a position is a weight, and inputs meet weights only at positions.
//
// Results depend on the arguments and the kernel only, not on threads.
//
// Escoin and SkimCaffe (Park et al. "Faster CNNs with Direct Sparse
// Convolutions and Guided Pruning". ICLR 2017) introduced offsets into padded
// planes in place of indices, which all kernels here use.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What functions return. Other than kSparseConvOk, `error` says why and
// nothing was written to outputs.
typedef enum {
  kSparseConvOk = 0,
  kSparseConvInvalidArgument = 1,
  kSparseConvOutOfMemory = 2,
} SparseConvCode;

typedef struct {
  char message[256];  // ends with 0
} SparseConvError;

typedef enum {
  kSparseConvNhwc = 0,
  kSparseConvNchw = 1,
} SparseConvFormat;

typedef enum {
  kSparseConvFloat32 = 0,
  kSparseConvBfloat16 = 1,
} SparseConvDtype;

typedef enum {
  kSparseConvNone = 0,
  kSparseConvRelu = 1,  // NaN stays NaN
} SparseConvActivation;

typedef struct {
  int64_t height;  // of the input, as in_channels
  int64_t width;
  int64_t in_channels;
  int64_t filter_height;
  int64_t filter_width;
  int64_t out_channels;
  int64_t stride_height;
  int64_t stride_width;
  int64_t dilation_height;
  int64_t dilation_width;
  int64_t pad_top;
  int64_t pad_bottom;
  int64_t pad_left;
  int64_t pad_right;
  int64_t groups;           // divides in_channels and out_channels
  SparseConvFormat format;  // of input and output
} SparseConvGeometry;

// Runs body(context, begin, end) over [0, items) in any split and order, and
// returns when all are done. `cost` is nanoseconds per item, roughly. A null
// pool: the calling thread does all.
typedef struct {
  void (*run)(void* pool, int64_t items, int64_t cost,
              void (*body)(void* context, int64_t begin, int64_t end),
              void* context);
  void* pool;
  int num_threads;  // a hint for the size of items; results do not depend on it
} SparseConvPool;

// Memory of one call that threads share (grad_values; the others work in
// memory that stays with each thread). allocate returns null where there is
// none; release may be null (memory that outlives the call by itself). A null
// allocator: malloc.
typedef struct {
  void* (*allocate)(void* context, size_t bytes);
  void (*release)(void* context, void* memory);
  void* context;
} SparseConvAllocator;

// Checks the geometry (sizes >= 0; filter, strides, dilations, groups and
// channels >= 1; pads >= 0; input, output and kernel below 2^31 elements an
// image) and gives the output's height and width: (size + pads - dilation *
// (filter - 1) - 1) / stride + 1, or 0 where the filter does not fit.
SparseConvCode sparse_conv_output_size(const SparseConvGeometry* geometry,
                                       int64_t* height, int64_t* width,
                                       SparseConvError* error);

// --- Patterns ----------------------------------------------------------------

typedef struct SparseConvPattern SparseConvPattern;

// What a pattern is prepared for; 0 in every field is the default.
typedef struct {
  // One of sparse_conv_kernel_name, or null: the fastest here.
  const char* kernel;
} SparseConvOptions;

// Names of kernels that this machine and process can run, fastest first;
// "scalar" is the last, and null follows it.
const char* sparse_conv_kernel_name(int index);

// `positions` are the num_nonzeros places of the non-zeros: flat indices into a
// kernel [filter_height, filter_width, in_channels / groups, out_channels],
// strictly ascending. Kernels of 2^31 elements or more are refused. `options`
// and `pool` may be null. The caller owns one reference.
SparseConvCode sparse_conv_pattern_create_int32(
    const SparseConvGeometry* geometry, const int32_t* positions,
    int64_t num_nonzeros, const SparseConvOptions* options,
    const SparseConvPool* pool, SparseConvPattern** pattern,
    SparseConvError* error);
SparseConvCode sparse_conv_pattern_create_int64(
    const SparseConvGeometry* geometry, const int64_t* positions,
    int64_t num_nonzeros, const SparseConvOptions* options,
    const SparseConvPool* pool, SparseConvPattern** pattern,
    SparseConvError* error);

void sparse_conv_pattern_retain(SparseConvPattern* pattern);
void sparse_conv_pattern_release(SparseConvPattern* pattern);  // null is fine

const SparseConvGeometry* sparse_conv_pattern_geometry(
    const SparseConvPattern* pattern);
int64_t sparse_conv_pattern_num_nonzeros(const SparseConvPattern* pattern);
// That it keeps, code included. The first call of each kind adds to it.
int64_t sparse_conv_pattern_bytes(const SparseConvPattern* pattern);

// --- Values ------------------------------------------------------------------

typedef struct SparseConvValues SparseConvValues;

// Copies the weights of the non-zeros, in the order of the positions, and keeps
// a reference to the pattern. The caller owns one reference.
SparseConvCode sparse_conv_values_create(
    SparseConvPattern* pattern, const void* values, SparseConvDtype dtype,
    const SparseConvPool* pool, SparseConvValues** out, SparseConvError* error);

void sparse_conv_values_retain(SparseConvValues* values);
void sparse_conv_values_release(SparseConvValues* values);  // null is fine

// --- Convolution and gradients -----------------------------------------------
//
// Float32 arrays without alignment. `pool` and `allocator` may be null. One
// pattern and one values object may be used by many threads at a time.

// output [batch, out_height, out_width, out_channels] (or NCHW). `bias`
// [out_channels] may be null.
SparseConvCode sparse_conv_forward(const SparseConvValues* values,
                                   int64_t batch, const float* input,
                                   const float* bias,
                                   SparseConvActivation activation,
                                   float* output, const SparseConvPool* pool,
                                   const SparseConvAllocator* allocator,
                                   SparseConvError* error);

// grad_input, of the input's shape, from grad_output, of the output's (without
// bias and activation: the caller masks grad_output where ReLU gave 0).
SparseConvCode sparse_conv_grad_input(const SparseConvValues* values,
                                      int64_t batch, const float* grad_output,
                                      float* grad_input,
                                      const SparseConvPool* pool,
                                      const SparseConvAllocator* allocator,
                                      SparseConvError* error);

// grad_values [num_nonzeros], in the order of the positions; grad_bias
// [out_channels], the sum of grad_output over images and places, may be null.
SparseConvCode sparse_conv_grad_values(const SparseConvPattern* pattern,
                                       int64_t batch, const float* input,
                                       const float* grad_output,
                                       float* grad_values, float* grad_bias,
                                       const SparseConvPool* pool,
                                       const SparseConvAllocator* allocator,
                                       SparseConvError* error);

// --- What is chosen and why --------------------------------------------------

typedef struct {
  const char* kernel;  // for this batch
  const char* isa;     // of the machine: sparse_conv_isa()
  int num_threads;
  double density;          // non-zeros / elements of the kernel
  double sparse_ms;        // modelled time of forward with this kernel
  double dense_ms;         // modelled time of a dense convolution (oneDNN)
  int use_sparse;          // 1 if sparse_ms is clearly below dense_ms
  double break_even;       // density, at random places, below which it is used
  int64_t code_bytes;      // generated code; 0 without
  int64_t prepared_bytes;  // of the pattern, code included
} SparseConvPlan;

// For a pattern. num_threads <= 0 counts as 1.
SparseConvCode sparse_conv_pattern_plan(const SparseConvPattern* pattern,
                                        int64_t batch, int num_threads,
                                        SparseConvPlan* plan,
                                        SparseConvError* error);

// Before there is a pattern: for num_nonzeros at random places.
SparseConvCode sparse_conv_estimate(const SparseConvGeometry* geometry,
                                    int64_t num_nonzeros, int64_t batch,
                                    int num_threads, SparseConvPlan* plan,
                                    SparseConvError* error);

// Instruction set in use: "scalar", "avx2" or "avx512". Chosen once, by cpuid;
// the environment variable SPARSE_CONV_ISA lowers it.
const char* sparse_conv_isa(void);

// 1 if this process may turn memory that it wrote into executable memory (never
// both at a time). Tried once; the environment variable SPARSE_CONV_JIT=0 says
// no. Without, the kernels compiled ahead of time serve.
int sparse_conv_executable_memory(void);

#ifdef __cplusplus
}
#endif

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_H_
