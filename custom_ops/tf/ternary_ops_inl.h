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
  return {Data(tensor),
          tensor.NumElements(),
          ToTernaryDtype(tensor.dtype()),
          static_cast<uint32_t>(id),
          0,
          0};
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

// Elements that are not left out.
int64_t Count(const TernaryTensor& tensor) {
  return tensor.size - tensor.before - tensor.after;
}

int64_t NumGroups(const std::vector<TernaryTensor>& tensors) {
  return Sum(tensors, [](const TernaryTensor& tensor) {
    return ternary_num_groups(Count(tensor));
  });
}

// With the guard.
int64_t NumWords(const std::vector<TernaryTensor>& tensors,
                 int64_t num_workers) {
  return 1 + Sum(tensors, [=](const TernaryTensor& tensor) {
           return ternary_num_words(Count(tensor), num_workers);
         });
}

Status CheckLength(const char* name, int64_t received, int64_t expected) {
  if (received == expected) return OkStatus();
  return errors::InvalidArgument("Invalid length of `", name, "`. Expected ",
                                 expected, ". Received: ", received, ".");
}

// Copies in the device's memory; both have the same size.
Status CopyTensor(OpKernelContext* context, const Tensor& from, Tensor* to);

// An output that begins as a copy of an input of its shape: in its memory,
// unless somebody else still needs that.
Status AllocateCopy(OpKernelContext* context, int input, int output,
                    Tensor** copy) {
  const Tensor& from = context->input(input);
  int forwarded = -1;
  TF_RETURN_IF_ERROR(context->forward_input_or_allocate_output(
      {input}, output, from.shape(), copy, &forwarded));
  return forwarded == input ? OkStatus() : CopyTensor(context, from, *copy);
}

// Which part of all gradients an op works on.
class Part {
 public:
  explicit Part(OpKernelConstruction* context) {
    OP_REQUIRES_OK(context, context->GetAttr("part", &part_));
    OP_REQUIRES_OK(context, context->GetAttr("num_parts", &num_parts_));
    OP_REQUIRES(context, part_ < num_parts_,
                errors::InvalidArgument(
                    "Invalid value for argument `part`. Expected a value below "
                    "num_parts=",
                    num_parts_, ". Received: ", part_, "."));
  }

  void Cut(std::vector<TernaryTensor>* tensors) const {
    ternary_cut(tensors->data(), static_cast<int>(tensors->size()), part_,
                num_parts_);
  }

 private:
  int64_t part_ = 0;
  int64_t num_parts_ = 1;
};

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
  explicit TernaryEncodeOp(OpKernelConstruction* context)
      : OpKernel(context), part_(context) {
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
    const Tensor* counts_before;
    OP_REQUIRES_OK(context, context->input("clip_levels", &clip_levels));
    OP_REQUIRES_OK(context, context->input("scalers", &scalers));
    OP_REQUIRES_OK(context, context->input("step", &step));
    OP_REQUIRES_OK(context, context->input("counts", &counts_before));
    const int64_t buckets = NumBuckets(tensors, options_.bucket_size);
    OP_REQUIRES_OK(context, CheckLength("clip_levels",
                                        clip_levels->NumElements(), buckets));
    OP_REQUIRES_OK(context,
                   CheckLength("scalers", scalers->NumElements(), buckets));
    OP_REQUIRES_OK(context, CheckLength("step", step->NumElements(), 1));
    OP_REQUIRES_OK(context, CheckLength("counts", counts_before->NumElements(),
                                        2 * tensors.size()));

    part_.Cut(&tensors);
    Tensor* payload;
    Tensor* counts;
    const int64_t length = options_.format == kTernaryTrits
                               ? kTernaryGroupBytes * NumGroups(tensors)
                               : NumWords(tensors, options_.num_workers);
    OP_REQUIRES_OK(context, context->allocate_output(0, {length}, &payload));
    OP_REQUIRES_OK(
        context, AllocateCopy(context, context->num_inputs() - 1, 1, &counts));
    TernaryEncodeOptions options = options_;
    options.step = static_cast<uint64_t>(step->scalar<int64_t>()());
    OP_REQUIRES_OK(context, Run(context, tensors, options, *clip_levels,
                                *scalers, payload, counts));
  }

 protected:
  virtual Status Run(OpKernelContext* context,
                     const std::vector<TernaryTensor>& tensors,
                     const TernaryEncodeOptions& options,
                     const Tensor& clip_levels, const Tensor& scalers,
                     Tensor* payload, Tensor* counts) = 0;

 private:
  Part part_;
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
  explicit TernaryDecodeOp(OpKernelConstruction* context)
      : OpKernel(context), part_(context) {
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
    OpInputList before;
    OP_REQUIRES_OK(context, context->input("payload", &payload));
    OP_REQUIRES_OK(context, context->input("scalers", &scalers));
    OP_REQUIRES_OK(context, context->input_list("shapes", &shapes));
    OP_REQUIRES_OK(context, context->input_list("before", &before));
    OP_REQUIRES_OK(
        context, CheckLength("shapes", shapes.size(), context->num_outputs()));
    if (before.size() > 0) {
      OP_REQUIRES_OK(context,
                     CheckLength("before", before.size(), shapes.size()));
    }
    std::vector<TernaryTensor> tensors;
    for (int i = 0; i < shapes.size(); ++i) {
      TensorShape shape;
      OP_REQUIRES_OK(context, TensorShapeUtils::MakeShape(
                                  shapes[i].vec<int64_t>(), &shape));
      Tensor* gradient;
      if (before.size() == 0) {
        OP_REQUIRES_OK(context, Allocate(context, i, shape, &gradient));
      } else {
        OP_REQUIRES(context,
                    before[i].shape() == shape &&
                        before[i].dtype() == context->expected_output_dtype(i),
                    errors::InvalidArgument(
                        "Invalid gradient ", i, " in `before`. Expected ",
                        DataTypeString(context->expected_output_dtype(i)),
                        shape.DebugString(),
                        ". Received: ", DataTypeString(before[i].dtype()),
                        before[i].shape().DebugString(), "."));
        OP_REQUIRES_OK(context, AllocateCopy(context, 2 + shapes.size() + i, i,
                                             &gradient));
      }
      tensors.push_back(View(*gradient));
    }
    const int64_t buckets = NumBuckets(tensors, bucket_size_);
    part_.Cut(&tensors);
    OP_REQUIRES_OK(context, CheckPayload(*payload, tensors));
    OP_REQUIRES_OK(context,
                   CheckLength("scalers", scalers->NumElements(), buckets));
    OP_REQUIRES_OK(context, Run(context, *payload, tensors, *scalers));
  }

 protected:
  // An output that does not begin as one of `before`.
  virtual Status Allocate(OpKernelContext* context, int i,
                          const TensorShape& shape, Tensor** gradient) {
    return context->allocate_output(i, shape, gradient);
  }

  virtual Status Run(OpKernelContext* context, const Tensor& payload,
                     const std::vector<TernaryTensor>& tensors,
                     const Tensor& scalers) = 0;

  TernaryLayout layout_;
  int64_t bucket_size_;
  int64_t num_workers_;

 private:
  Part part_;

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
