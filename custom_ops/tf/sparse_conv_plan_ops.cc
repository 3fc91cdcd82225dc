// TensorFlow ops beside the sparse convolution: what it would do and why, and
// the kernel with its zeros for where a dense convolution is faster.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "custom_ops/tf/sparse_conv_attributes.h"
#include "custom_ops/tf/sparse_conv_prepared.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tensorflow {
namespace {

using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

// --- What is chosen and why --------------------------------------------------

REGISTER_OP(SPARSE_CONV_OP("SparseConv2DPlan"))
    .Input("positions: Tpositions")
    .Output("names: string")
    .Output("numbers: double")
    .Attr("input_shape: list(int)")
    .Attr("num_nonzeros: int >= -1 = -1")
    .Attr("num_threads: int >= 0 = 0")
    .SPARSE_CONV_ATTRIBUTES
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Vector(2));
      c->set_output(1, c->Vector(8));
      return OkStatus();
    })
    .Doc(R"doc(
What SparseConv2D would do with an input of a shape.

positions: As in SparseConv2D.
names: Kernel, instruction set.
numbers: Threads, density, modelled milliseconds of the sparse and of a dense
  convolution, whether the sparse one is used, density below which it is
  modelled to be faster, bytes of generated code, bytes prepared.
input_shape: [4].
num_nonzeros: If >= 0, so many at random places in place of the positions.
num_threads: 0: those of the device.
)doc");

class SparseConv2DPlanOp : public OpKernel {
 public:
  explicit SparseConv2DPlanOp(OpKernelConstruction* context)
      : OpKernel(context) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("kernel", &kernel_));
    OP_REQUIRES_OK(context, context->GetAttr("num_nonzeros", &num_nonzeros_));
    OP_REQUIRES_OK(context, context->GetAttr("num_threads", &num_threads_));
    std::vector<int64_t> shape;
    OP_REQUIRES_OK(context, context->GetAttr("input_shape", &shape));
    OP_REQUIRES_OK(context, TensorShapeUtils::MakeShape(shape, &input_shape_));
  }

  void Compute(OpKernelContext* context) override {
    SparseConvGeometry geometry;
    TensorShape unused;
    OP_REQUIRES_OK(context,
                   attributes_.Geometry(input_shape_, &geometry, &unused));
    const Pool pool(context);
    const int64_t batch = input_shape_.dim_size(0);
    const int threads = num_threads_ > 0 ? static_cast<int>(num_threads_)
                                         : pool.get()->num_threads;
    SparseConvPlan plan = {};
    SparseConvError error;
    if (num_nonzeros_ >= 0) {
      OP_REQUIRES_OK(
          context, ToStatus(sparse_conv_estimate(&geometry, num_nonzeros_,
                                                 batch, threads, &plan, &error),
                            error));
    } else {
      std::shared_ptr<Prepared> prepared;
      OP_REQUIRES_OK(context,
                     PatternCache::Get().Find(geometry, context->input(0),
                                              kernel_, pool.get(), &prepared));
      OP_REQUIRES_OK(
          context, ToStatus(sparse_conv_pattern_plan(prepared->pattern(), batch,
                                                     threads, &plan, &error),
                            error));
    }
    Tensor *names, *numbers;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, TensorShape({2}), &names));
    names->flat<tstring>()(0) = plan.kernel;
    names->flat<tstring>()(1) = plan.isa;
    const double list[] = {static_cast<double>(plan.num_threads),
                           plan.density,
                           plan.sparse_ms,
                           plan.dense_ms,
                           static_cast<double>(plan.use_sparse),
                           plan.break_even,
                           static_cast<double>(plan.code_bytes),
                           static_cast<double>(plan.prepared_bytes)};
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, TensorShape({8}), &numbers));
    for (int i = 0; i < 8; ++i) numbers->flat<double>()(i) = list[i];
  }

 private:
  Attributes attributes_;
  std::string kernel_;
  int64_t num_nonzeros_ = -1;
  int64_t num_threads_ = 0;
  TensorShape input_shape_;
};

REGISTER_KERNEL_BUILDER(
    Name(SPARSE_CONV_OP("SparseConv2DPlan")).Device(DEVICE_CPU),
    SparseConv2DPlanOp);

// --- The kernel with its zeros -----------------------------------------------

REGISTER_OP(SPARSE_CONV_OP("SparseKernelToDense"))
    .Input("positions: int32")
    .Input("values: T")
    .Output("kernel: float")
    .Attr("T: {float, bfloat16}")
    .Attr("kernel_shape: shape")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle positions, kernel;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &positions));
      TF_RETURN_IF_ERROR(c->Merge(positions, c->input(1), &positions));
      PartialTensorShape shape;
      TF_RETURN_IF_ERROR(c->GetAttr("kernel_shape", &shape));
      TF_RETURN_IF_ERROR(c->MakeShapeFromPartialTensorShape(shape, &kernel));
      c->set_output(0, kernel);
      return OkStatus();
    })
    .Doc(R"doc(
The kernel with its zeros. Made again only when positions or values change.

positions: [non-zeros], ascending flat indices into the kernel.
values: [non-zeros].
)doc");

class SparseKernelToDenseOp : public OpKernel {
 public:
  explicit SparseKernelToDenseOp(OpKernelConstruction* context)
      : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("kernel_shape", &shape_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& positions = context->input(0);
    const Tensor& values = context->input(1);
    OP_REQUIRES(context,
                positions.dims() == 1 && values.shape() == positions.shape(),
                errors::InvalidArgument(
                    "Expected a value for each position. Received: values of "
                    "shape ",
                    values.shape().DebugString(), ", positions of shape ",
                    positions.shape().DebugString(), "."));
    std::lock_guard<std::mutex> lock(mutex_);
    // Held tensors keep their buffers: see SparseConvOp.
    if (!made_ || !SameBuffer(positions_, positions) ||
        !SameBuffer(values_, values)) {
      made_ = false;
      OP_REQUIRES_OK(context,
                     context->allocate_temp(DT_FLOAT, shape_, &kernel_));
      auto kernel = kernel_.flat<float>();
      std::fill_n(kernel.data(), kernel.size(), 0.0f);
      const auto places = positions.flat<int32_t>();
      for (int64_t i = 0; i < places.size(); ++i) {
        OP_REQUIRES(
            context, places(i) >= 0 && places(i) < kernel.size(),
            errors::InvalidArgument("Expected positions in [0, ", kernel.size(),
                                    "). Received: ", places(i), "."));
        kernel(places(i)) = values.dtype() == DT_BFLOAT16
                                ? static_cast<float>(values.flat<bfloat16>()(i))
                                : values.flat<float>()(i);
      }
      positions_ = positions;
      values_ = values;
      made_ = true;
    }
    context->set_output(0, kernel_);
  }

 private:
  TensorShape shape_;
  std::mutex mutex_;
  bool made_ = false;
  Tensor positions_;
  Tensor values_;
  Tensor kernel_;
};

REGISTER_KERNEL_BUILDER(
    Name(SPARSE_CONV_OP("SparseKernelToDense")).Device(DEVICE_CPU),
    SparseKernelToDenseOp);

}  // namespace
}  // namespace tensorflow
