// Compares the CUDA codec with the CPU codec bit by bit. Prints the first
// failure and exits with 1; without a GPU says so and exits with 77.

#include "custom_ops/core/ternary/ternary_cuda.h"

#include <cstdio>

#include "custom_ops/core/cuda_program.h"
#include "custom_ops/core/ternary/ternary_cuda_test.h"

namespace ternary {
namespace cuda {
namespace {

class CudaTwin : public OnGpu<Twin> {
 public:
  void Scalers(const TernaryTensor* tensors, int num_tensors,
               double clip_factor, int64_t bucket_size,
               TernaryDtype scaler_dtype, void* scalers) override {
    void* workspace = Allocate(
        ternary_cuda_scalers_workspace(tensors, num_tensors, bucket_size));
    CHECK_CUDA(ternary_cuda_scalers(tensors, num_tensors, clip_factor,
                                    bucket_size, scaler_dtype, scalers,
                                    workspace, stream()));
  }
  void Encode(const TernaryTensor* tensors, int num_tensors,
              const TernaryEncodeOptions& options, TernaryDtype scaler_dtype,
              const void* clip_levels, const void* scalers, void* payload,
              int64_t* counts) override {
    void* workspace = Allocate(ternary_cuda_codec_workspace(num_tensors));
    CHECK_CUDA(ternary_cuda_encode(tensors, num_tensors, &options, scaler_dtype,
                                   clip_levels, scalers, payload, counts,
                                   workspace, stream()));
  }
  void SumTrits(const uint8_t* parts, int64_t groups, int64_t num_workers,
                int64_t* words) override {
    CHECK_CUDA(
        ternary_cuda_sum_trits(parts, groups, num_workers, words, stream()));
  }
  void Decode(const void* payload, TernaryLayout layout,
              const TernaryTensor* tensors, int num_tensors,
              int64_t bucket_size, int64_t num_workers,
              TernaryDtype scaler_dtype, const void* scalers,
              int64_t* guard) override {
    void* workspace = Allocate(ternary_cuda_codec_workspace(num_tensors));
    CHECK_CUDA(ternary_cuda_decode(payload, layout, tensors, num_tensors,
                                   bucket_size, num_workers, scaler_dtype,
                                   scalers, guard, workspace, stream()));
  }
};

}  // namespace
}  // namespace cuda
}  // namespace ternary

int main() {
  if (!HasGpu("ternary_cuda_test")) return kSkipped;
  ternary::cuda::CudaTwin twin;
  ternary::cuda::TestTwin(300, &twin);
  std::printf("ternary_cuda_test: all passed\n");
  return 0;
}
