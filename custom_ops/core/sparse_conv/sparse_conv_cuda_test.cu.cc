// Compares the CUDA convolution with the CPU's scalar kernel. Prints the first
// failure and exits with 1; without a GPU says so and exits with 77.
//
//   sparse_conv_cuda_test [random convolutions, default 3000]

#include "custom_ops/core/sparse_conv/sparse_conv_cuda.h"

#include <cstdio>

#include "custom_ops/core/cuda_program.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_test.h"

namespace sparse_conv {
namespace cuda {
namespace {

class CudaTwin : public OnGpu<Twin> {
 public:
  void SetValues(const SparseConvCudaPattern* pattern, void* memory,
                 const void* values, SparseConvDtype dtype) override {
    CHECK_CUDA(
        sparse_conv_cuda_set_values(pattern, memory, values, dtype, stream()));
  }
  void Convolve(const SparseConvCudaPattern* pattern, const void* memory,
                int64_t batch, const float* input, const float* bias,
                SparseConvActivation activation, float* output) override {
    CHECK_CUDA(sparse_conv_cuda_convolve(pattern, memory, batch, input, bias,
                                         activation, output, stream()));
  }
  void GradValues(const SparseConvCudaPattern* pattern, const void* memory,
                  int64_t batch, const float* input, const float* grad_output,
                  float* grad_values, float* grad_bias) override {
    void* workspace =
        Allocate(sparse_conv_cuda_grad_values_workspace(pattern, batch));
    CHECK_CUDA(sparse_conv_cuda_grad_values(pattern, memory, batch, input,
                                            grad_output, grad_values, grad_bias,
                                            workspace, stream()));
  }
};

}  // namespace
}  // namespace cuda
}  // namespace sparse_conv

int main(int argc, char** argv) {
  if (!HasGpu("sparse_conv_cuda_test")) return kSkipped;
  sparse_conv::cuda::CudaTwin twin;
  sparse_conv::cuda::TestTwin(argc > 1 ? std::atoll(argv[1]) : 3000, &twin);
  std::printf("sparse_conv_cuda_test: all passed\n");
  return 0;
}
