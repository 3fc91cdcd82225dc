// What tests and benchmarks on a GPU share.

#ifndef CUSTOM_OPS_CORE_CUDA_PROGRAM_H_
#define CUSTOM_OPS_CORE_CUDA_PROGRAM_H_

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK_CUDA(call)                                                \
  do {                                                                  \
    const cudaError_t status = (call);                                  \
    if (status != cudaSuccess) {                                        \
      std::printf("%s:%d: failed: %s: %s\n", __FILE__, __LINE__, #call, \
                  cudaGetErrorString(status));                          \
      std::exit(1);                                                     \
    }                                                                   \
  } while (false)

// What CTest takes as skipped.
constexpr int kSkipped = 77;

// Whether there is a GPU; otherwise says that `program` is skipped.
inline bool HasGpu(const char* program) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return true;
  std::printf("%s: skipped, no GPU (%s)\n", program,
              cudaGetErrorString(status));
  return false;
}

// The memory of a twin, on a stream that the default stream does not wait for,
// as TensorFlow's.
template <typename Twin>
class OnGpu : public Twin {
 public:
  OnGpu() {
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~OnGpu() override {
    FreeAll();
    cudaStreamDestroy(stream_);
  }

  void* Allocate(size_t bytes) final {
    void* memory;
    CHECK_CUDA(cudaMalloc(&memory, bytes + 1));
    CHECK_CUDA(cudaMemsetAsync(memory, 0xCD, bytes + 1, stream_));
    memory_.push_back(memory);
    return memory;
  }
  void FreeAll() final {
    CHECK_CUDA(cudaStreamSynchronize(stream_));
    for (void* memory : memory_) CHECK_CUDA(cudaFree(memory));
    memory_.clear();
  }
  void Upload(const void* host, size_t bytes, void* device) final {
    CHECK_CUDA(
        cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
    CHECK_CUDA(cudaStreamSynchronize(stream_));
  }
  void Download(const void* device, size_t bytes, void* host) final {
    CHECK_CUDA(
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
    CHECK_CUDA(cudaStreamSynchronize(stream_));
  }

 protected:
  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_;
  std::vector<void*> memory_;
};

#endif  // CUSTOM_OPS_CORE_CUDA_PROGRAM_H_
