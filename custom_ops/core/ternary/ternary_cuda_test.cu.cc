// Compares the CUDA codec with the CPU codec bit by bit. Prints the first
// failure and exits with 1; without a GPU says so and exits with 77.

#include "custom_ops/core/ternary/ternary_cuda.h"

#include <cstdio>

#include "custom_ops/core/ternary/ternary_cuda_test.h"

namespace ternary {
namespace cuda {
namespace {

#define CHECK_CUDA(call)                                                \
  do {                                                                  \
    const cudaError_t status = (call);                                  \
    if (status != cudaSuccess) {                                        \
      std::printf("%s:%d: failed: %s: %s\n", __FILE__, __LINE__, #call, \
                  cudaGetErrorString(status));                          \
      std::exit(1);                                                     \
    }                                                                   \
  } while (false)

// On a stream that the default stream does not wait for, as TensorFlow's.
class CudaTwin : public Twin {
 public:
  CudaTwin() {
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~CudaTwin() override {
    FreeAll();
    cudaStreamDestroy(stream_);
  }

  void* Allocate(size_t bytes) override {
    void* memory;
    CHECK_CUDA(cudaMalloc(&memory, bytes + 1));
    CHECK_CUDA(cudaMemsetAsync(memory, 0xCD, bytes + 1, stream_));
    memory_.push_back(memory);
    return memory;
  }
  void FreeAll() override {
    CHECK_CUDA(cudaStreamSynchronize(stream_));
    for (void* memory : memory_) CHECK_CUDA(cudaFree(memory));
    memory_.clear();
  }
  void Upload(const void* host, size_t bytes, void* device) override {
    CHECK_CUDA(
        cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
    CHECK_CUDA(cudaStreamSynchronize(stream_));
  }
  void Download(const void* device, size_t bytes, void* host) override {
    CHECK_CUDA(
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
    CHECK_CUDA(cudaStreamSynchronize(stream_));
  }

  void Scalers(const TernaryTensor* tensors, int num_tensors,
               double clip_factor, int64_t bucket_size,
               TernaryDtype scaler_dtype, void* scalers) override {
    void* workspace = Allocate(
        ternary_cuda_scalers_workspace(tensors, num_tensors, bucket_size));
    CHECK_CUDA(ternary_cuda_scalers(tensors, num_tensors, clip_factor,
                                    bucket_size, scaler_dtype, scalers,
                                    workspace, stream_));
  }
  void Encode(const TernaryTensor* tensors, int num_tensors,
              const TernaryEncodeOptions& options, TernaryDtype scaler_dtype,
              const void* clip_levels, const void* scalers, void* payload,
              int64_t* counts) override {
    void* workspace = Allocate(ternary_cuda_codec_workspace(num_tensors));
    CHECK_CUDA(ternary_cuda_encode(tensors, num_tensors, &options, scaler_dtype,
                                   clip_levels, scalers, payload, counts,
                                   workspace, stream_));
  }
  void SumTrits(const uint8_t* parts, int64_t groups, int64_t num_workers,
                int64_t* words) override {
    CHECK_CUDA(
        ternary_cuda_sum_trits(parts, groups, num_workers, words, stream_));
  }
  void Decode(const void* payload, TernaryLayout layout,
              const TernaryTensor* tensors, int num_tensors,
              int64_t bucket_size, int64_t num_workers,
              TernaryDtype scaler_dtype, const void* scalers,
              int64_t* guard) override {
    void* workspace = Allocate(ternary_cuda_codec_workspace(num_tensors));
    CHECK_CUDA(ternary_cuda_decode(payload, layout, tensors, num_tensors,
                                   bucket_size, num_workers, scaler_dtype,
                                   scalers, guard, workspace, stream_));
  }

 private:
  cudaStream_t stream_;
  std::vector<void*> memory_;
};

}  // namespace
}  // namespace cuda
}  // namespace ternary

int main() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("ternary_cuda_test: skipped, no GPU (%s)\n",
                cudaGetErrorString(status));
    return 77;
  }
  ternary::cuda::CudaTwin twin;
  ternary::cuda::TestTwin(300, &twin);
  std::printf("ternary_cuda_test: all passed\n");
  return 0;
}
