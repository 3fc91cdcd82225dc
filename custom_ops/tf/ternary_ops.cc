// TensorFlow ops over the ternary codec, and their CPU kernels on TensorFlow's
// threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"
#include "custom_ops/tf/kept_memory.h"
#include "custom_ops/tf/ternary_ops_inl.h"
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
    .Input("counts: int64")
    .Output("payload: Tpayload")
    .Output("counts_after: int64")
    .Attr("Tpayload: {int64, uint8}")
    .Attr(std::string("T: ") + kGradientTypes)
    .Attr("Tscaler: {float, double}")
    .Attr("tensor_ids: list(int)")
    .Attr("bucket_size: int >= 0")
    .Attr("num_workers: int >= 1")
    .Attr("rank: int >= 0")
    .Attr("seed: int")
    .Attr("part: int >= 0 = 0")
    .Attr("num_parts: int >= 1 = 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle unused;
      TF_RETURN_IF_ERROR(
          c->WithRank(c->input(c->num_inputs() - 2), 0, &unused));
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      c->set_output(1, c->Matrix(2, c->num_inputs() - 4));
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
counts: [2, gradients] to add to.
payload: int64 [words + 1], each gradient padded to whole words, then the guard,
  1; or uint8 [32 * groups], each gradient padded to groups of 160 elements.
counts_after: [2, gradients] elements sent as -1 or +1; elements above their
  clip level.
part: Of the groups of all gradients, cut into num_parts: only these are
  encoded.
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
    .Input("before: Tbefore")
    .Output("gradients: T")
    .Attr("Tpayload: {int64, uint8}")
    .Attr("layout: {'sum', 'sum_of_trits', 'gathered'}")
    .Attr("num_tensors: int >= 1")
    .Attr(std::string("T: ") + kGradientTypes)
    .Attr("Tscaler: {float, double}")
    .Attr("Tbefore: list({half, bfloat16, float, double}) >= 0")
    .Attr("bucket_size: int >= 0")
    .Attr("num_workers: int >= 1")
    .Attr("part: int >= 0 = 0")
    .Attr("num_parts: int >= 1 = 1")
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
part: What was encoded of the gradients; all else is as in `before`, which is
  empty or a gradient for each, and undefined without.

A bucket whose scaler is +inf decodes to NaN. Fails if the guard word is not
num_workers: the payload is then no plain sum over that many workers.
)doc");

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

Status CopyTensor(OpKernelContext*, const Tensor& from, Tensor* to) {
  std::memcpy(Data(*to), Data(from), from.TotalBytes());
  return OkStatus();
}

class TernaryScalersCpuOp : public TernaryScalersOp {
 public:
  using TernaryScalersOp::TernaryScalersOp;

 protected:
  Status Run(OpKernelContext* context,
             const std::vector<TernaryTensor>& tensors,
             Tensor* scalers) override {
    std::vector<double> values(scalers->NumElements());
    const TernaryPool pool = Pool(context);
    ternary_scalers(tensors.data(), static_cast<int>(tensors.size()),
                    clip_factor_, bucket_size_, values.data(), &pool);
    if (scalers->dtype() == DT_DOUBLE) {
      std::copy(values.begin(), values.end(), scalers->flat<double>().data());
    } else {
      // Exact: the core rounded them, but for double gradients.
      std::copy(values.begin(), values.end(), scalers->flat<float>().data());
    }
    return OkStatus();
  }
};

class TernaryEncodeCpuOp : public TernaryEncodeOp {
 public:
  using TernaryEncodeOp::TernaryEncodeOp;

 protected:
  Status Run(OpKernelContext* context,
             const std::vector<TernaryTensor>& tensors,
             const TernaryEncodeOptions& options, const Tensor& clip_levels,
             const Tensor& scalers, Tensor* payload, Tensor* counts) override {
    const TernaryPool pool = Pool(context);
    ternary_encode(tensors.data(), static_cast<int>(tensors.size()), &options,
                   ToDouble(clip_levels).data(), ToDouble(scalers).data(),
                   Data(*payload), counts->flat<int64_t>().data(), &pool);
    return OkStatus();
  }
};

class TernarySumTritsCpuOp : public TernarySumTritsOp {
 public:
  using TernarySumTritsOp::TernarySumTritsOp;

 protected:
  Status Run(OpKernelContext* context, const Tensor& parts, int64_t groups,
             Tensor* words) override {
    const TernaryPool pool = Pool(context);
    ternary_sum_trits(parts.flat<uint8_t>().data(), groups, num_workers_,
                      words->flat<int64_t>().data(), &pool);
    return OkStatus();
  }
};

class TernaryDecodeCpuOp : public TernaryDecodeOp {
 public:
  explicit TernaryDecodeCpuOp(OpKernelConstruction* context)
      : TernaryDecodeOp(context) {
    for (int i = 0; i < context->num_outputs(); ++i) {
      memory_.push_back(std::make_shared<KeptMemory>());
    }
  }

 protected:
  Status Allocate(OpKernelContext* context, int i, const TensorShape& shape,
                  Tensor** gradient) override {
    const DataType dtype = context->expected_output_dtype(i);
    Tensor tensor;
    if (DataTypeSize(dtype) * shape.num_elements() < KeptMemory::kMinBytes ||
        !memory_[i]->Allocate(dtype, shape, &tensor)) {
      return context->allocate_output(i, shape, gradient);
    }
    context->set_output(i, tensor);
    *gradient = context->mutable_output(i);
    return OkStatus();
  }

  Status Run(OpKernelContext* context, const Tensor& payload,
             const std::vector<TernaryTensor>& tensors,
             const Tensor& scalers) override {
    const TernaryPool pool = Pool(context);
    const int64_t guard =
        ternary_decode(Data(payload), layout_, tensors.data(),
                       static_cast<int>(tensors.size()), bucket_size_,
                       num_workers_, ToDouble(scalers).data(), &pool);
    if (guard == num_workers_) return OkStatus();
    return errors::InvalidArgument(
        "The payload is not the sum over all workers: its guard word is ",
        guard, ", expected ", num_workers_,
        ". Ternary payloads must be added with op=Sum over all workers, "
        "without pre- or postscaling, and no worker may have joined early.");
  }

 private:
  std::vector<std::shared_ptr<KeptMemory>> memory_;  // of each output
};

REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernarySumTrits").Device(DEVICE_CPU),
                        TernarySumTritsCpuOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryScalers").Device(DEVICE_CPU),
                        TernaryScalersCpuOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryEncode").Device(DEVICE_CPU),
                        TernaryEncodeCpuOp);
REGISTER_KERNEL_BUILDER(Name("TernGradSSL>TernaryDecode").Device(DEVICE_CPU),
                        TernaryDecodeCpuOp);

}  // namespace
}  // namespace tensorflow
