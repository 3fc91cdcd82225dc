// Launches of the CUDA convolution. What it computes is in
// sparse_conv_cuda_*_inl.h, which the host runs too.

#include "custom_ops/core/sparse_conv/sparse_conv_cuda.h"

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_launch_inl.h"

namespace sparse_conv {
namespace cuda {
namespace {

class GpuThread {
 public:
  // Zeros where not valid.
  template <int bytes>
  __device__ __forceinline__ void Copy(void* shared, const void* global,
                                       bool valid) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const int size = valid ? bytes : 0;
    if constexpr (bytes == 16) {  // past the first cache
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                   "l"(global), "r"(size)
                   : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to),
                   "l"(global), "n"(bytes), "r"(size)
                   : "memory");
    }
  }

  // With two stages, the copies that were started last are those of the next
  // step.
  __device__ __forceinline__ void Commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  __device__ __forceinline__ void Wait() {
    static_assert(kStages == 2, "more copies may be under way");
    asm volatile("cp.async.wait_group 0;" ::: "memory");
  }

  // Adds the sum over all lanes of a warp, which has *target for itself.
  __device__ __forceinline__ void AddOfWarp(float value, float* target) {
#pragma unroll
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      value += __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
    }
    if (threadIdx.x % kWarp == 0) *target += value;
  }

  template <KernelKind kind>
  __device__ __forceinline__ void Multiply(const uint32_t* a, const uint32_t* b,
                                           float* sum) {
    if constexpr (kind == kTf32) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
};

constexpr int kBlocksAtATime = 2;  // of a multiprocessor

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, kBlocksAtATime)
    RunKernel(const __grid_constant__ Kernel kernel) {
  extern __shared__ __align__(16) char shared[];
  const int64_t block = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  typename Kernel::Registers registers;
  GpuThread machine;
  kernel.Begin(block, thread, shared, &registers, &machine);
  const int steps = kernel.NumSteps(block);
  for (int step = 0; step < steps; ++step) {
    __syncthreads();
    kernel.Step(step, block, thread, shared, &registers, &machine);
  }
#pragma unroll
  for (int i = 0; i < Kernel::kEnds; ++i) {
    __syncthreads();
    kernel.End(i, block, thread, shared, &registers, &machine);
  }
}

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    RunThreads(const __grid_constant__ Kernel kernel) {
  kernel.Run(blockIdx.x, static_cast<int>(threadIdx.x));
}

// Work on a stream; after a failure, nothing more.
class StreamDevice {
 public:
  explicit StreamDevice(cudaStream_t stream) : stream_(stream) {}

  template <typename Kernel>
  void Launch(const Kernel& kernel, int64_t blocks) {
    if (!IsLaunched(blocks)) return;
    constexpr int kBytes = Kernel::kSharedBytes;
    status_ = cudaFuncSetAttribute(
        RunKernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (status_ != cudaSuccess) return;
    RunKernel<<<static_cast<unsigned>(blocks), Kernel::kThreads, kBytes,
                stream_>>>(kernel);
    status_ = cudaGetLastError();
  }

  template <typename Kernel>
  void LaunchThreads(const Kernel& kernel, int64_t blocks) {
    if (!IsLaunched(blocks)) return;
    RunThreads<<<static_cast<unsigned>(blocks), Kernel::kThreads, 0, stream_>>>(
        kernel);
    status_ = cudaGetLastError();
  }

  cudaError_t status() const { return status_; }

 private:
  bool IsLaunched(int64_t blocks) {
    constexpr int64_t kMaxBlocks = 0x7FFFFFFF;
    if (status_ != cudaSuccess || blocks == 0) return false;
    if (blocks > kMaxBlocks) status_ = cudaErrorInvalidConfiguration;
    return status_ == cudaSuccess;
  }

  cudaStream_t stream_;
  cudaError_t status_ = cudaSuccess;
};

}  // namespace
}  // namespace cuda
}  // namespace sparse_conv

using namespace sparse_conv::cuda;  // NOLINT: the C interface follows.

extern "C" cudaError_t sparse_conv_cuda_set_values(
    const SparseConvCudaPattern* pattern, void* memory, const void* values,
    SparseConvDtype dtype, cudaStream_t stream) {
  if (dtype != kSparseConvFloat32 && dtype != kSparseConvBfloat16) {
    return cudaErrorInvalidValue;
  }
  StreamDevice device(stream);
  SetValues(*pattern, static_cast<char*>(memory), values, dtype, &device);
  return device.status();
}

extern "C" cudaError_t sparse_conv_cuda_convolve(
    const SparseConvCudaPattern* pattern, const void* memory, int64_t batch,
    const float* input, const float* bias, SparseConvActivation activation,
    float* output, cudaStream_t stream) {
  if (batch < 0) return cudaErrorInvalidValue;
  StreamDevice device(stream);
  Convolve(*pattern, static_cast<const char*>(memory), batch, input, bias,
           activation == kSparseConvRelu, output, &device);
  return device.status();
}

extern "C" int64_t sparse_conv_cuda_grad_values_workspace(
    const SparseConvCudaPattern* pattern, int64_t batch) {
  return PlanGradValues(*pattern, batch).workspace *
         static_cast<int64_t>(sizeof(float));
}

extern "C" cudaError_t sparse_conv_cuda_grad_values(
    const SparseConvCudaPattern* pattern, const void* memory, int64_t batch,
    const float* input, const float* grad_output, float* grad_values,
    float* grad_bias, void* workspace, cudaStream_t stream) {
  if (batch < 0 || pattern->variant.kind != kDirect ||
      pattern->purpose != kSparseConvCudaForward) {
    return cudaErrorInvalidValue;
  }
  StreamDevice device(stream);
  GradValues(*pattern, static_cast<const char*>(memory), batch, input,
             grad_output, grad_values, grad_bias,
             static_cast<float*>(workspace), &device);
  return device.status();
}
