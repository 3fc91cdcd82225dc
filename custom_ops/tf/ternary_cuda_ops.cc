// GPU kernels of the ops of ternary_ops.cc: memory around
// custom_ops/core/ternary/ternary_cuda.h, on TensorFlow's own stream. Compiled
// where CMake found nvcc; without a GPU the kernels are registered and never
// made.

#if GOOGLE_CUDA

#include <algorithm>
#include <cstdint>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"
#include "custom_ops/core/ternary/ternary_cuda.h"
#include "custom_ops/tf/ternary_ops_inl.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "xla/stream_executor/stream.h"

namespace tensorflow {
namespace {

Status ToStatus(cudaError_t error) {
  if (error == cudaSuccess) return OkStatus();
  return errors::Internal("The ternary codec could not use CUDA: ",
                          cudaGetErrorString(error));
}

// Not the default stream: TensorFlow's does not wait for that.
cudaStream_t Stream(OpKernelContext* context) {
  return static_cast<cudaStream_t>(context->op_device_context()
                                       ->stream()
                                       ->platform_specific_handle()
                                       .stream);
}

Status CopyTensor(OpKernelContext* context, const Tensor& from, Tensor* to) {
  return ToStatus(cudaMemcpyAsync(Data(*to), Data(from), from.TotalBytes(),
                                  cudaMemcpyDeviceToDevice, Stream(context)));
}

// Device memory that later ops may reuse only after this one's kernels.
Status AllocateWorkspace(OpKernelContext* context, int64_t bytes,
                         Tensor* workspace) {
  return context->allocate_temp(DT_UINT8, {std::max<int64_t>(bytes, 1)},
                                workspace);
}

class TernaryScalersGpuOp : public TernaryScalersOp {
 public:
  using TernaryScalersOp::TernaryScalersOp;

 protected:
  Status Run(OpKernelContext* context,
             const std::vector<TernaryTensor>& tensors,
             Tensor* scalers) override {
    const int num_tensors = static_cast<int>(tensors.size());
    Tensor workspace;
    TF_RETURN_IF_ERROR(
        AllocateWorkspace(context,
                          ternary_cuda_scalers_workspace(
                              tensors.data(), num_tensors, bucket_size_),
                          &workspace));
    return ToStatus(
        ternary_cuda_scalers(tensors.data(), num_tensors, clip_factor_,
                             bucket_size_, ToTernaryDtype(scalers->dtype()),
                             Data(*scalers), Data(workspace), Stream(context)));
  }
};

class TernaryEncodeGpuOp : public TernaryEncodeOp {
 public:
  using TernaryEncodeOp::TernaryEncodeOp;

 protected:
  Status Run(OpKernelContext* context,
             const std::vector<TernaryTensor>& tensors,
             const TernaryEncodeOptions& options, const Tensor& clip_levels,
             const Tensor& scalers, Tensor* payload, Tensor* counts) override {
    const int num_tensors = static_cast<int>(tensors.size());
    Tensor workspace;
    TF_RETURN_IF_ERROR(AllocateWorkspace(
        context, ternary_cuda_codec_workspace(num_tensors), &workspace));
    return ToStatus(ternary_cuda_encode(
        tensors.data(), num_tensors, &options, ToTernaryDtype(scalers.dtype()),
        Data(clip_levels), Data(scalers), Data(*payload),
        counts->flat<int64_t>().data(), Data(workspace), Stream(context)));
  }
};

class TernarySumTritsGpuOp : public TernarySumTritsOp {
 public:
  using TernarySumTritsOp::TernarySumTritsOp;

 protected:
  Status Run(OpKernelContext* context, const Tensor& parts, int64_t groups,
             Tensor* words) override {
    return ToStatus(ternary_cuda_sum_trits(
        parts.flat<uint8_t>().data(), groups, num_workers_,
        words->flat<int64_t>().data(), Stream(context)));
  }
};

// A wrong guard word cannot stop the step without waiting for the GPU: the
// gradients become NaN instead.
class TernaryDecodeGpuOp : public TernaryDecodeOp {
 public:
  using TernaryDecodeOp::TernaryDecodeOp;

 protected:
  Status Run(OpKernelContext* context, const Tensor& payload,
             const std::vector<TernaryTensor>& tensors,
             const Tensor& scalers) override {
    const int num_tensors = static_cast<int>(tensors.size());
    Tensor guard;
    Tensor workspace;
    TF_RETURN_IF_ERROR(context->allocate_temp(DT_INT64, {1}, &guard));
    TF_RETURN_IF_ERROR(AllocateWorkspace(
        context, ternary_cuda_codec_workspace(num_tensors), &workspace));
    return ToStatus(ternary_cuda_decode(
        Data(payload), layout_, tensors.data(), num_tensors, bucket_size_,
        num_workers_, ToTernaryDtype(scalers.dtype()), Data(scalers),
        guard.flat<int64_t>().data(), Data(workspace), Stream(context)));
  }
};

REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryScalers").Device(DEVICE_GPU),
                        TernaryScalersGpuOp);
REGISTER_KERNEL_BUILDER(
    Name("TernGradSSL>TernaryEncode").Device(DEVICE_GPU).HostMemory("step"),
    TernaryEncodeGpuOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernarySumTrits").Device(DEVICE_GPU),
                        TernarySumTritsGpuOp);
REGISTER_KERNEL_BUILDER(
    Name("TernGradSSL>TernaryDecode").Device(DEVICE_GPU).HostMemory("shapes"),
    TernaryDecodeGpuOp);

}  // namespace
}  // namespace tensorflow

#endif  // GOOGLE_CUDA
