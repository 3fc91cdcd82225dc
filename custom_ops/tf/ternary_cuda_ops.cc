// The ops of ternary_ops.cc on a GPU: shapes, checks and memory around
// custom_ops/core/ternary/ternary_cuda.h, on TensorFlow's own stream. Compiled
// where CMake found nvcc; without a GPU the kernels are registered and never
// made.

#if GOOGLE_CUDA

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"
#include "custom_ops/core/ternary/ternary_cuda.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "xla/stream_executor/stream.h"

namespace tensorflow {
namespace {

TernaryDtype ToTernaryDtype(DataType dtype) {
  switch (dtype) {
    case DT_DOUBLE:
      return kTernaryFloat64;
    case DT_HALF:
      return kTernaryFloat16;
    case DT_BFLOAT16:
      return kTernaryBfloat16;
    default:
      return kTernaryFloat32;
  }
}

char* Data(const Tensor& tensor) {
  return const_cast<char*>(tensor.tensor_data().data());
}

TernaryTensor View(const Tensor& tensor, int64_t id = 0) {
  return {Data(tensor), tensor.NumElements(), ToTernaryDtype(tensor.dtype()),
          static_cast<uint32_t>(id)};
}

std::vector<TernaryTensor> Views(const OpInputList& gradients) {
  std::vector<TernaryTensor> tensors;
  for (const Tensor& gradient : gradients) tensors.push_back(View(gradient));
  return tensors;
}

// Adds up function(tensor).
template <typename Function>
int64_t Sum(const std::vector<TernaryTensor>& tensors,
            const Function& function) {
  int64_t sum = 0;
  for (const TernaryTensor& tensor : tensors) sum += function(tensor);
  return sum;
}

int64_t NumBuckets(const std::vector<TernaryTensor>& tensors,
                   int64_t bucket_size) {
  return Sum(tensors, [=](const TernaryTensor& tensor) {
    return ternary_num_buckets(tensor.size, bucket_size);
  });
}

int64_t NumGroups(const std::vector<TernaryTensor>& tensors) {
  return Sum(tensors, [](const TernaryTensor& tensor) {
    return ternary_num_groups(tensor.size);
  });
}

// With the guard.
int64_t NumWords(const std::vector<TernaryTensor>& tensors,
                 int64_t num_workers) {
  return 1 + Sum(tensors, [=](const TernaryTensor& tensor) {
           return ternary_num_words(tensor.size, num_workers);
         });
}

Status CheckLength(const char* name, int64_t received, int64_t expected) {
  if (received == expected) return OkStatus();
  return errors::InvalidArgument("Invalid length of `", name, "`. Expected ",
                                 expected, ". Received: ", received, ".");
}

Status ToStatus(cudaError_t error) {
  if (error == cudaSuccess) return OkStatus();
  return errors::Internal("A CUDA kernel of the ternary codec did not start: ",
                          cudaGetErrorString(error));
}

// Not the default stream: TensorFlow's does not wait for that.
cudaStream_t Stream(OpKernelContext* context) {
  return static_cast<cudaStream_t>(context->op_device_context()
                                       ->stream()
                                       ->platform_specific_handle()
                                       .stream);
}

// Device memory that later ops may reuse only after this one's kernels.
Status AllocateWorkspace(OpKernelContext* context, int64_t bytes,
                         Tensor* workspace) {
  return context->allocate_temp(DT_UINT8, {std::max<int64_t>(bytes, 1)},
                                workspace);
}

class TernaryScalersGpuOp : public OpKernel {
 public:
  explicit TernaryScalersGpuOp(OpKernelConstruction* context)
      : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("clip_factor", &clip_factor_));
    OP_REQUIRES_OK(context, context->GetAttr("bucket_size", &bucket_size_));
  }

  void Compute(OpKernelContext* context) override {
    OpInputList gradients;
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    const std::vector<TernaryTensor> tensors = Views(gradients);
    const int num_tensors = static_cast<int>(tensors.size());
    Tensor* scalers;
    Tensor workspace;
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       0, {NumBuckets(tensors, bucket_size_)}, &scalers));
    OP_REQUIRES_OK(context, AllocateWorkspace(
                                context,
                                ternary_cuda_scalers_workspace(
                                    tensors.data(), num_tensors, bucket_size_),
                                &workspace));
    OP_REQUIRES_OK(context,
                   ToStatus(ternary_cuda_scalers(
                       tensors.data(), num_tensors, clip_factor_, bucket_size_,
                       ToTernaryDtype(scalers->dtype()), Data(*scalers),
                       Data(workspace), Stream(context))));
  }

 private:
  float clip_factor_;
  int64_t bucket_size_;
};

class TernaryEncodeGpuOp : public OpKernel {
 public:
  explicit TernaryEncodeGpuOp(OpKernelConstruction* context)
      : OpKernel(context) {
    int64_t rank, seed;
    DataType payload_type;
    OP_REQUIRES_OK(context, context->GetAttr("tensor_ids", &tensor_ids_));
    OP_REQUIRES_OK(context,
                   context->GetAttr("bucket_size", &options_.bucket_size));
    OP_REQUIRES_OK(context,
                   context->GetAttr("num_workers", &options_.num_workers));
    OP_REQUIRES_OK(context, context->GetAttr("rank", &rank));
    OP_REQUIRES_OK(context, context->GetAttr("seed", &seed));
    OP_REQUIRES_OK(context, context->GetAttr("Tpayload", &payload_type));
    options_.format = payload_type == DT_UINT8 ? kTernaryTrits : kTernaryWords;
    options_.rank = static_cast<uint32_t>(rank);
    options_.seed = static_cast<uint64_t>(seed);
  }

  void Compute(OpKernelContext* context) override {
    OpInputList gradients;
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    std::vector<TernaryTensor> tensors = Views(gradients);
    OP_REQUIRES_OK(
        context, CheckLength("tensor_ids", tensor_ids_.size(), tensors.size()));
    for (size_t t = 0; t < tensors.size(); ++t) {
      tensors[t].id = static_cast<uint32_t>(tensor_ids_[t]);
    }
    const Tensor* clip_levels;
    const Tensor* scalers;
    const Tensor* step;
    OP_REQUIRES_OK(context, context->input("clip_levels", &clip_levels));
    OP_REQUIRES_OK(context, context->input("scalers", &scalers));
    OP_REQUIRES_OK(context, context->input("step", &step));
    const int64_t buckets = NumBuckets(tensors, options_.bucket_size);
    OP_REQUIRES_OK(context, CheckLength("clip_levels",
                                        clip_levels->NumElements(), buckets));
    OP_REQUIRES_OK(context,
                   CheckLength("scalers", scalers->NumElements(), buckets));
    OP_REQUIRES_OK(context, CheckLength("step", step->NumElements(), 1));

    const int64_t num_tensors = static_cast<int64_t>(tensors.size());
    const int64_t length = options_.format == kTernaryTrits
                               ? kTernaryGroupBytes * NumGroups(tensors)
                               : NumWords(tensors, options_.num_workers);
    Tensor* payload;
    Tensor* num_nonzero;
    Tensor* num_clipped;
    Tensor workspace;
    OP_REQUIRES_OK(context, context->allocate_output(0, {length}, &payload));
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, {num_tensors}, &num_nonzero));
    OP_REQUIRES_OK(context,
                   context->allocate_output(2, {num_tensors}, &num_clipped));
    OP_REQUIRES_OK(context,
                   AllocateWorkspace(context,
                                     ternary_cuda_codec_workspace(
                                         static_cast<int>(num_tensors)),
                                     &workspace));
    TernaryEncodeOptions options = options_;
    options.step = static_cast<uint64_t>(step->scalar<int64_t>()());
    OP_REQUIRES_OK(
        context,
        ToStatus(ternary_cuda_encode(
            tensors.data(), static_cast<int>(num_tensors), &options,
            ToTernaryDtype(scalers->dtype()), Data(*clip_levels),
            Data(*scalers), Data(*payload), num_nonzero->flat<int64_t>().data(),
            num_clipped->flat<int64_t>().data(), Data(workspace),
            Stream(context))));
  }

 private:
  std::vector<int64_t> tensor_ids_;
  TernaryEncodeOptions options_ = {};
};

class TernarySumTritsGpuOp : public OpKernel {
 public:
  explicit TernarySumTritsGpuOp(OpKernelConstruction* context)
      : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_workers", &num_workers_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& parts = context->input(0);
    const int64_t unit = num_workers_ * kTernaryGroupBytes;
    OP_REQUIRES(context, parts.NumElements() % unit == 0,
                errors::InvalidArgument(
                    "Invalid length of `parts`. Expected a multiple of ", unit,
                    " (", num_workers_, " workers, groups of ",
                    static_cast<int>(kTernaryGroupBytes),
                    " bytes). Received: ", parts.NumElements(), "."));
    const int64_t groups = parts.NumElements() / unit;
    Tensor* words;
    OP_REQUIRES_OK(
        context,
        context->allocate_output(
            0, {ternary_num_words(groups * kTernaryGroup, num_workers_)},
            &words));
    OP_REQUIRES_OK(context,
                   ToStatus(ternary_cuda_sum_trits(
                       parts.flat<uint8_t>().data(), groups, num_workers_,
                       words->flat<int64_t>().data(), Stream(context))));
  }

 private:
  int64_t num_workers_;
};

// A wrong guard word cannot stop the step without waiting for the GPU: the
// gradients become NaN instead.
class TernaryDecodeGpuOp : public OpKernel {
 public:
  explicit TernaryDecodeGpuOp(OpKernelConstruction* context)
      : OpKernel(context) {
    std::string layout;
    DataType payload_type;
    OP_REQUIRES_OK(context, context->GetAttr("layout", &layout));
    OP_REQUIRES_OK(context, context->GetAttr("Tpayload", &payload_type));
    layout_ = layout == "sum"            ? kTernarySum
              : layout == "sum_of_trits" ? kTernarySumOfTrits
                                         : kTernaryGathered;
    OP_REQUIRES(
        context, (payload_type == DT_UINT8) == (layout_ == kTernaryGathered),
        errors::InvalidArgument("Invalid type of `payload`. Expected uint8 for "
                                "layout 'gathered', int64 for the others. "
                                "Received: ",
                                DataTypeString(payload_type), ", layout '",
                                layout, "'."));
    OP_REQUIRES_OK(context, context->GetAttr("bucket_size", &bucket_size_));
    OP_REQUIRES_OK(context, context->GetAttr("num_workers", &num_workers_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor* payload;
    const Tensor* scalers;
    OpInputList shapes;
    OP_REQUIRES_OK(context, context->input("payload", &payload));
    OP_REQUIRES_OK(context, context->input("scalers", &scalers));
    OP_REQUIRES_OK(context, context->input_list("shapes", &shapes));
    OP_REQUIRES_OK(
        context, CheckLength("shapes", shapes.size(), context->num_outputs()));
    std::vector<TernaryTensor> tensors;
    for (int i = 0; i < shapes.size(); ++i) {
      TensorShape shape;
      OP_REQUIRES_OK(context, TensorShapeUtils::MakeShape(
                                  shapes[i].vec<int64_t>(), &shape));
      Tensor* gradient;
      OP_REQUIRES_OK(context, context->allocate_output(i, shape, &gradient));
      tensors.push_back(View(*gradient));
    }
    OP_REQUIRES_OK(context, CheckPayload(*payload, tensors));
    OP_REQUIRES_OK(context, CheckLength("scalers", scalers->NumElements(),
                                        NumBuckets(tensors, bucket_size_)));
    const int num_tensors = static_cast<int>(tensors.size());
    Tensor guard;
    Tensor workspace;
    OP_REQUIRES_OK(context, context->allocate_temp(DT_INT64, {1}, &guard));
    OP_REQUIRES_OK(
        context,
        AllocateWorkspace(context, ternary_cuda_codec_workspace(num_tensors),
                          &workspace));
    OP_REQUIRES_OK(
        context,
        ToStatus(ternary_cuda_decode(
            Data(*payload), layout_, tensors.data(), num_tensors, bucket_size_,
            num_workers_, ToTernaryDtype(scalers->dtype()), Data(*scalers),
            guard.flat<int64_t>().data(), Data(workspace), Stream(context))));
  }

 private:
  Status CheckPayload(const Tensor& payload,
                      const std::vector<TernaryTensor>& tensors) const {
    const int64_t length = payload.NumElements();
    if (layout_ == kTernarySum) {
      return CheckLength("payload", length, NumWords(tensors, num_workers_));
    }
    const int64_t groups = NumGroups(tensors);
    if (layout_ == kTernaryGathered) {
      return CheckLength("payload", length,
                         num_workers_ * groups * kTernaryGroupBytes);
    }
    const int64_t words =
        ternary_num_words(groups * kTernaryGroup, num_workers_);
    if (length >= words) return OkStatus();
    return CheckLength("payload", length, words);
  }

  TernaryLayout layout_;
  int64_t bucket_size_;
  int64_t num_workers_;
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
