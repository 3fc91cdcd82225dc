// Launches of the CUDA codec. What it computes is in ternary_cuda_*_inl.h,
// which the host runs too.

#include "custom_ops/core/ternary/ternary_cuda.h"

#include "custom_ops/core/ternary/ternary_cuda_launch_inl.h"

namespace ternary {
namespace cuda {
namespace {

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    RunKernel(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  const int phases = kernel.Phases(blockIdx.x);
  for (int phase = 0; phase < phases; ++phase) {
    if (phase > 0) __syncthreads();
    kernel.Run(phase, blockIdx.x, static_cast<int>(threadIdx.x), &shared);
  }
}

// Work on a stream; after a failure, nothing more.
class StreamDevice {
 public:
  explicit StreamDevice(cudaStream_t stream) : stream_(stream) {}

  template <typename Kernel>
  void Launch(const Kernel& kernel, int64_t blocks) {
    constexpr int64_t kMaxBlocks = 0x7FFFFFFF;
    if (status_ != cudaSuccess || blocks == 0) return;
    if (blocks > kMaxBlocks) {
      status_ = cudaErrorInvalidConfiguration;
      return;
    }
    RunKernel<<<static_cast<unsigned>(blocks), Kernel::kThreads, 0, stream_>>>(
        kernel);
    status_ = cudaGetLastError();
  }

  void Zero(void* memory, int64_t bytes) {
    if (status_ != cudaSuccess || bytes == 0) return;
    status_ = cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_);
  }

  cudaError_t status() const { return status_; }

 private:
  cudaStream_t stream_;
  cudaError_t status_ = cudaSuccess;
};

bool IsScalerDtype(TernaryDtype dtype) {
  return dtype == kTernaryFloat32 || dtype == kTernaryFloat64;
}

bool IsNumWorkers(int64_t num_workers) {
  return num_workers >= 1 && num_workers <= kMaxWorkers;
}

}  // namespace
}  // namespace cuda
}  // namespace ternary

using namespace ternary::cuda;  // NOLINT: the C interface follows.

extern "C" int64_t ternary_cuda_scalers_workspace(const TernaryTensor* tensors,
                                                  int num_tensors,
                                                  int64_t bucket_size) {
  return SplitScalersWorkspace(tensors, num_tensors, bucket_size, nullptr)
      .bytes;
}

extern "C" cudaError_t ternary_cuda_scalers(const TernaryTensor* tensors,
                                            int num_tensors, double clip_factor,
                                            int64_t bucket_size,
                                            TernaryDtype scaler_dtype,
                                            void* scalers, void* workspace,
                                            cudaStream_t stream) {
  if (!IsScalerDtype(scaler_dtype)) return cudaErrorInvalidValue;
  StreamDevice device(stream);
  Scalers(tensors, num_tensors, clip_factor, bucket_size, scaler_dtype, scalers,
          workspace, &device);
  return device.status();
}

extern "C" int64_t ternary_cuda_codec_workspace(int num_tensors) {
  return num_tensors * static_cast<int64_t>(sizeof(Record));
}

extern "C" cudaError_t ternary_cuda_encode(
    const TernaryTensor* tensors, int num_tensors,
    const TernaryEncodeOptions* options, TernaryDtype scaler_dtype,
    const void* clip_levels, const void* scalers, void* payload,
    int64_t* counts, void* workspace, cudaStream_t stream) {
  if (!IsScalerDtype(scaler_dtype) || !IsNumWorkers(options->num_workers)) {
    return cudaErrorInvalidValue;
  }
  StreamDevice device(stream);
  Encode(tensors, num_tensors, *options, scaler_dtype, clip_levels, scalers,
         payload, counts, workspace, &device);
  return device.status();
}

extern "C" cudaError_t ternary_cuda_sum_trits(const uint8_t* parts,
                                              int64_t groups,
                                              int64_t num_workers,
                                              int64_t* words,
                                              cudaStream_t stream) {
  if (!IsNumWorkers(num_workers)) return cudaErrorInvalidValue;
  StreamDevice device(stream);
  SumTrits(parts, groups, num_workers, words, &device);
  return device.status();
}

extern "C" cudaError_t ternary_cuda_decode(
    const void* payload, TernaryLayout layout, const TernaryTensor* tensors,
    int num_tensors, int64_t bucket_size, int64_t num_workers,
    TernaryDtype scaler_dtype, const void* scalers, int64_t* guard,
    void* workspace, cudaStream_t stream) {
  if (!IsScalerDtype(scaler_dtype) || !IsNumWorkers(num_workers)) {
    return cudaErrorInvalidValue;
  }
  StreamDevice device(stream);
  Decode(payload, layout, tensors, num_tensors, bucket_size, num_workers,
         scaler_dtype, scalers, guard, workspace, &device);
  return device.status();
}
