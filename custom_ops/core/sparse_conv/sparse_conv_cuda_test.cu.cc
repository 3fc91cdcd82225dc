// Compares the CUDA convolution with the CPU's scalar kernel. Prints the first
// failure and exits with 1; without a GPU says so and exits with 77.
//
//   sparse_conv_cuda_test [random convolutions, default 3000]

#include "custom_ops/core/sparse_conv/sparse_conv_cuda.h"

#include <cstdio>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_test.h"

namespace sparse_conv {
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
  void SetValues(const SparseConvCudaPattern* pattern, void* memory,
                 const void* values, SparseConvDtype dtype) override {
    CHECK_CUDA(
        sparse_conv_cuda_set_values(pattern, memory, values, dtype, stream_));
  }
  void Convolve(const SparseConvCudaPattern* pattern, const void* memory,
                int64_t batch, const float* input, const float* bias,
                SparseConvActivation activation, float* output) override {
    CHECK_CUDA(sparse_conv_cuda_convolve(pattern, memory, batch, input, bias,
                                         activation, output, stream_));
  }
  void GradValues(const SparseConvCudaPattern* pattern, const void* memory,
                  int64_t batch, const float* input, const float* grad_output,
                  float* grad_values, float* grad_bias) override {
    void* workspace =
        Allocate(sparse_conv_cuda_grad_values_workspace(pattern, batch));
    CHECK_CUDA(sparse_conv_cuda_grad_values(pattern, memory, batch, input,
                                            grad_output, grad_values, grad_bias,
                                            workspace, stream_));
  }

 private:
  cudaStream_t stream_;
  std::vector<void*> memory_;
};

}  // namespace
}  // namespace cuda
}  // namespace sparse_conv

int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("sparse_conv_cuda_test: skipped, no GPU (%s)\n",
                cudaGetErrorString(status));
    return 77;
  }
  sparse_conv::cuda::CudaTwin twin;
  sparse_conv::cuda::TestTwin(argc > 1 ? std::atoll(argv[1]) : 3000, &twin);
  std::printf("sparse_conv_cuda_test: all passed\n");
  return 0;
}
