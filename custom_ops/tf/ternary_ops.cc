// TensorFlow ops over the ternary codec: shapes, checks, memory and threads.
// The arithmetic is in custom_ops/core/ternary.

#include <cstdint>
#include <limits>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/threadpool.h"

namespace tensorflow {
namespace {

using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

constexpr char kGradientTypes[] = "list({half, bfloat16, float, double}) >= 1";

REGISTER_OP("TernGradSSL>TernaryScalers")
    .Input("gradients: T")
    .Output("scalers: Tscaler")
    .Attr(std::string("T: ") + kGradientTypes)
    .Attr("Tscaler: {float, double}")
    .Attr("clip_factor: float")
    .Attr("bucket_size: int >= 0")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      return OkStatus();
    })
    .Doc(R"doc(
One scaler per bucket of each gradient, in turn.

  s = min(max |g|, clip_factor * sigma)

sigma is the standard deviation of the whole gradient about its mean.
clip_factor = 0: s = max |g|. Gradients below 32 elements, or nearly constant,
are not clipped. Any non-finite element makes the scaler of its bucket +inf.

gradients: Tensors of any shape, also empty.
scalers: [buckets]. float unless a gradient is double.
bucket_size: Elements that share a scaler; 0: one scaler per gradient.
)doc");

REGISTER_OP("TernGradSSL>TernaryEncode")
    .Input("gradients: T")
    .Input("clip_levels: Tscaler")
    .Input("scalers: Tscaler")
    .Input("step: int64")
    .Output("payload: Tpayload")
    .Output("num_nonzero: int64")
    .Output("num_clipped: int64")
    .Attr("Tpayload: {int64, uint8}")
    .Attr(std::string("T: ") + kGradientTypes)
    .Attr("Tscaler: {float, double}")
    .Attr("tensor_ids: list(int)")
    .Attr("bucket_size: int >= 0")
    .Attr("num_workers: int >= 1")
    .Attr("rank: int >= 0")
    .Attr("seed: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle unused;
      TF_RETURN_IF_ERROR(
          c->WithRank(c->input(c->num_inputs() - 1), 0, &unused));
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      c->set_output(1, c->Vector(c->num_inputs() - 3));
      c->set_output(2, c->Vector(c->num_inputs() - 3));
      return OkStatus();
    })
    .Doc(R"doc(
Ternarizes all gradients into one payload.

  P(digit = sign(g) + 1) = min(|g|, clip_level) / scaler, else digit = 1

An int64 payload holds digits of base 2 * num_workers + 1: those of all workers
may be added with an ordinary (wrapping) sum. A uint8 payload holds five digits
of base 3 in a byte: to be gathered.

clip_levels: [buckets] this worker's own scalers, or the shared ones.
scalers: [buckets] shared by all workers.
step: Scalar, 40 bits. With seed, rank and tensor id it keys the random stream.
payload: int64 [words + 1], each gradient padded to whole words, then the guard,
  1; or uint8 [32 * groups], each gradient padded to groups of 160 elements.
num_nonzero: [gradients] elements sent as -1 or +1.
num_clipped: [gradients] elements above their clip level.
)doc");

REGISTER_OP("TernGradSSL>TernarySumTrits")
    .Input("parts: uint8")
    .Output("words: int64")
    .Attr("num_workers: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle unused;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &unused));
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      return OkStatus();
    })
    .Doc(R"doc(
Adds trits of all workers; the sums are digits of base 2 * num_workers + 1.

parts: [num_workers * bytes], one worker's groups of 32 bytes after the other's.
words: [words], digits of 160 elements a group, without gaps.
)doc");

REGISTER_OP("TernGradSSL>TernaryDecode")
    .Input("payload: Tpayload")
    .Input("scalers: Tscaler")
    .Input("shapes: num_tensors * int64")
    .Output("gradients: T")
    .Attr("Tpayload: {int64, uint8}")
    .Attr("layout: {'sum', 'sum_of_trits', 'gathered'}")
    .Attr("num_tensors: int >= 1")
    .Attr(std::string("T: ") + kGradientTypes)
    .Attr("Tscaler: {float, double}")
    .Attr("bucket_size: int >= 0")
    .Attr("num_workers: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      for (int i = 0; i < c->num_outputs(); ++i) {
        ShapeHandle shape;
        TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(2 + i, &shape));
        c->set_output(i, shape);
      }
      return OkStatus();
    })
    .Doc(R"doc(
The averaged gradients from all workers' payloads.

  g = sum of signs * (scaler / num_workers)

layout: 'sum': the int64 payloads, added. 'sum_of_trits': int64, what
  TernarySumTrits makes of the uint8 payloads (perhaps longer). 'gathered': the
  uint8 payloads, one after the other.

A bucket whose scaler is +inf decodes to NaN. Fails if the guard word is not
num_workers: the payload is then no plain sum over that many workers.
)doc");

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

// TensorFlow's own pool.
TernaryPool Pool(OpKernelContext* context) {
  return {[](void* pool, int64_t items, int64_t cost,
             void (*body)(void*, int64_t, int64_t), void* body_context) {
            static_cast<thread::ThreadPool*>(pool)->ParallelFor(
                items, cost, [=](int64_t begin, int64_t end) {
                  body(body_context, begin, end);
                });
          },
          context->device()->tensorflow_cpu_worker_threads()->workers};
}

std::vector<double> ToDouble(const Tensor& scalers) {
  std::vector<double> values(scalers.NumElements());
  if (scalers.dtype() == DT_DOUBLE) {
    const double* data = scalers.flat<double>().data();
    std::copy(data, data + values.size(), values.begin());
  } else {
    const float* data = scalers.flat<float>().data();
    std::copy(data, data + values.size(), values.begin());
  }
  return values;
}

int64_t NumBuckets(const std::vector<TernaryTensor>& tensors,
                   int64_t bucket_size) {
  int64_t buckets = 0;
  for (const TernaryTensor& tensor : tensors) {
    buckets += ternary_num_buckets(tensor.size, bucket_size);
  }
  return buckets;
}

int64_t NumGroups(const std::vector<TernaryTensor>& tensors) {
  int64_t groups = 0;
  for (const TernaryTensor& tensor : tensors) {
    groups += ternary_num_groups(tensor.size);
  }
  return groups;
}

int64_t NumWords(const std::vector<TernaryTensor>& tensors,
                 int64_t num_workers) {
  int64_t words = 1;  // the guard
  for (const TernaryTensor& tensor : tensors) {
    words += ternary_num_words(tensor.size, num_workers);
  }
  return words;
}

Status CheckLength(const char* name, int64_t received, int64_t expected) {
  if (received == expected) return OkStatus();
  return errors::InvalidArgument("Invalid length of `", name, "`. Expected ",
                                 expected, ". Received: ", received, ".");
}

std::vector<TernaryTensor> Views(const OpInputList& gradients) {
  std::vector<TernaryTensor> tensors;
  for (const Tensor& gradient : gradients) tensors.push_back(View(gradient));
  return tensors;
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
    std::vector<double> scalers(NumBuckets(tensors, bucket_size_));
    const TernaryPool pool = Pool(context);
    ternary_scalers(tensors.data(), static_cast<int>(tensors.size()),
                    clip_factor_, bucket_size_, scalers.data(), &pool);
    Tensor* output;
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       0, {static_cast<int64_t>(scalers.size())}, &output));
    if (output->dtype() == DT_DOUBLE) {
      std::copy(scalers.begin(), scalers.end(), output->flat<double>().data());
    } else {
      // Exact: the core rounded them, but for double gradients.
      std::copy(scalers.begin(), scalers.end(), output->flat<float>().data());
    }
  }

 private:
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
    const TernaryPool pool = Pool(context);
    ternary_encode(tensors.data(), static_cast<int>(num_tensors), &options,
                   ToDouble(*clip_levels).data(), ToDouble(*scalers).data(),
                   Data(*payload), num_nonzero->flat<int64_t>().data(),
                   num_clipped->flat<int64_t>().data(), &pool);
  }

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
    const TernaryPool pool = Pool(context);
    ternary_sum_trits(parts.flat<uint8_t>().data(), groups, num_workers_,
                      words->flat<int64_t>().data(), &pool);
  }

 private:
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
    const TernaryPool pool = Pool(context);
    const int64_t guard =
        ternary_decode(Data(*payload), layout_, tensors.data(),
                       static_cast<int>(tensors.size()), bucket_size_,
                       num_workers_, ToDouble(*scalers).data(), &pool);
    OP_REQUIRES(
        context, guard == num_workers_,
        errors::InvalidArgument(
            "The payload is not the sum over all workers: its guard word is ",
            guard, ", expected ", num_workers_,
            ". Ternary payloads must be added with op=Sum over all workers, "
            "without pre- or postscaling, and no worker may have joined "
            "early."));
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

REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernarySumTrits").Device(DEVICE_CPU),
                        TernarySumTritsOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryScalers").Device(DEVICE_CPU),
                        TernaryScalersOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryEncode").Device(DEVICE_CPU),
                        TernaryEncodeOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryDecode").Device(DEVICE_CPU),
                        TernaryDecodeOp);

}  // namespace
}  // namespace tensorflow
