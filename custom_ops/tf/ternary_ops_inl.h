// The ternary ops without their computation: attributes, shapes, checks and
// outputs, the same on CPU and GPU. The arithmetic is in
// custom_ops/core/ternary.

#ifndef CUSTOM_OPS_TF_TERNARY_OPS_INL_H_
#define CUSTOM_OPS_TF_TERNARY_OPS_INL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"
#include "tensorflow/core/framework/op_kernel.h"

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

class TernaryScalersOp : public OpKernel {
 public:
  explicit TernaryScalersOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("clip_factor", &clip_factor_));
    OP_REQUIRES_OK(context, context->GetAttr("bucket_size", &bucket_size_));
  }

  void Compute(OpKernelContext* context) override {
    OpInputList gradients;
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    const std::vector<TernaryTensor> tensors = Views(gradients);
    Tensor* scalers;
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       0, {NumBuckets(tensors, bucket_size_)}, &scalers));
    OP_REQUIRES_OK(context, Run(context, tensors, scalers));
  }

 protected:
  virtual Status Run(OpKernelContext* context,
                     const std::vector<TernaryTensor>& tensors,
                     Tensor* scalers) = 0;

  float clip_factor_;
  int64_t bucket_size_;
};

class TernaryEncodeOp : public OpKernel {
 public:
  explicit TernaryEncodeOp(OpKernelConstruction* context) : OpKernel(context) {
    int64_t rank, seed;
    OP_REQUIRES_OK(context, context->GetAttr("tensor_ids", &tensor_ids_));
    OP_REQUIRES_OK(context,
                   context->GetAttr("bucket_size", &options_.bucket_size));
    OP_REQUIRES_OK(context,
                   context->GetAttr("num_workers", &options_.num_workers));
    OP_REQUIRES_OK(context, context->GetAttr("rank", &rank));
    OP_REQUIRES_OK(context, context->GetAttr("seed", &seed));
    DataType payload_type;
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

    Tensor* payload;
    Tensor* num_nonzero;
    Tensor* num_clipped;
    const int64_t num_tensors = static_cast<int64_t>(tensors.size());
    const int64_t length = options_.format == kTernaryTrits
                               ? kTernaryGroupBytes * NumGroups(tensors)
                               : NumWords(tensors, options_.num_workers);
    OP_REQUIRES_OK(context, context->allocate_output(0, {length}, &payload));
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, {num_tensors}, &num_nonzero));
    OP_REQUIRES_OK(context,
                   context->allocate_output(2, {num_tensors}, &num_clipped));
    TernaryEncodeOptions options = options_;
    options.step = static_cast<uint64_t>(step->scalar<int64_t>()());
    OP_REQUIRES_OK(context, Run(context, tensors, options, *clip_levels,
                                *scalers, payload, num_nonzero, num_clipped));
  }

 protected:
  virtual Status Run(OpKernelContext* context,
                     const std::vector<TernaryTensor>& tensors,
                     const TernaryEncodeOptions& options,
                     const Tensor& clip_levels, const Tensor& scalers,
                     Tensor* payload, Tensor* num_nonzero,
                     Tensor* num_clipped) = 0;

 private:
  std::vector<int64_t> tensor_ids_;
  TernaryEncodeOptions options_ = {};
};

class TernarySumTritsOp : public OpKernel {
 public:
  explicit TernarySumTritsOp(OpKernelConstruction* context)
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
    OP_REQUIRES_OK(context, Run(context, parts, groups, words));
  }

 protected:
  virtual Status Run(OpKernelContext* context, const Tensor& parts,
                     int64_t groups, Tensor* words) = 0;

  int64_t num_workers_;
};

class TernaryDecodeOp : public OpKernel {
 public:
  explicit TernaryDecodeOp(OpKernelConstruction* context) : OpKernel(context) {
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
    OP_REQUIRES_OK(context, Run(context, *payload, tensors, *scalers));
  }

 protected:
  virtual Status Run(OpKernelContext* context, const Tensor& payload,
                     const std::vector<TernaryTensor>& tensors,
                     const Tensor& scalers) = 0;

  TernaryLayout layout_;
  int64_t bucket_size_;
  int64_t num_workers_;

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
};

}  // namespace
}  // namespace tensorflow

#endif  // CUSTOM_OPS_TF_TERNARY_OPS_INL_H_
