// TensorFlow ops over the sparse convolution: forward and gradients.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "custom_ops/tf/sparse_conv_attributes.h"
#include "custom_ops/tf/sparse_conv_prepared.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tensorflow {
namespace {

using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

// --- Forward -----------------------------------------------------------------

Status OutputShape(InferenceContext* c) {
  Attributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  ShapeHandle input, unused;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &input));
  ShapeHandle positions;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &positions));
  TF_RETURN_IF_ERROR(c->Merge(positions, c->input(2), &unused));
  DimensionHandle channels = c->Dim(input, attributes.ChannelAxis());
  if (c->ValueKnown(channels)) {
    TF_RETURN_IF_ERROR(
        attributes.CheckChannels(c->Value(channels), c->DebugString(input)));
  }
  ShapeHandle output = input;
  for (int axis = 0; axis < 2; ++axis) {
    DimensionHandle size = c->Dim(input, attributes.HeightAxis() + axis);
    DimensionHandle result = c->UnknownDim();
    if (c->ValueKnown(size)) {
      int64_t value, before, after;
      TF_RETURN_IF_ERROR(
          attributes.Window(axis, c->Value(size), &value, &before, &after));
      result = c->MakeDim(value);
    }
    TF_RETURN_IF_ERROR(
        c->ReplaceDim(output, attributes.HeightAxis() + axis, result, &output));
  }
  TF_RETURN_IF_ERROR(c->ReplaceDim(output, attributes.ChannelAxis(),
                                   c->MakeDim(attributes.kernel_shape[3]),
                                   &output));
  c->set_output(0, output);
  ShapeHandle bias;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 1, &bias));
  DimensionHandle length = c->Dim(bias, 0);
  if (!c->ValueKnown(length)) return OkStatus();
  return attributes.CheckBias(c->Value(length), c->DebugString(bias));
}

REGISTER_OP(SPARSE_CONV_OP("SparseConv2D"))
    .Input("input: float")
    .Input("positions: Tpositions")
    .Input("values: T")
    .Input("bias: float")
    .Output("output: float")
    .Attr("T: {float, bfloat16}")
    .Attr("activation: {'none', 'relu'} = 'none'")
    .SPARSE_CONV_ATTRIBUTES.SetShapeFn(OutputShape)
    .Doc(R"doc(
Two-dimensional convolution with a sparse kernel.

input: [batch, height, width, channels], or NCHW.
positions: [non-zeros], ascending flat indices into a kernel of kernel_shape.
values: [non-zeros], the weights there. bfloat16 is storage: sums are float.
bias: [filters], or empty.
output: [batch, output height, output width, filters], or NCHW.
kernel_shape: Height, width, channels of a group, filters.
explicit_paddings: Top, bottom, left, right.
kernel: Name of the implementation, for tests; empty: the fastest here.
)doc");

class SparseConv2DOp : public SparseConvOp {
 public:
  explicit SparseConv2DOp(OpKernelConstruction* context)
      : SparseConvOp(context) {
    std::string activation;
    OP_REQUIRES_OK(context, context->GetAttr("activation", &activation));
    activation_ = activation == "relu" ? kSparseConvRelu : kSparseConvNone;
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    const Tensor& bias = context->input(3);
    SparseConvGeometry geometry;
    TensorShape shape;
    OP_REQUIRES_OK(context,
                   attributes_.Geometry(input.shape(), &geometry, &shape));
    OP_REQUIRES_OK(context, attributes_.CheckBias(bias.NumElements(),
                                                  bias.shape().DebugString()));
    const bool has_bias = bias.NumElements() > 0;
    const Pool pool(context);
    Values values;
    OP_REQUIRES_OK(context, FindValues(geometry, context->input(1),
                                       context->input(2), pool, &values));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &output));
    if (shape.num_elements() == 0) return;
    if (input.NumElements() == 0) {
      FillWithBias(bias, output);
      return;
    }
    Scratch scratch(context);
    SparseConvError error;
    OP_REQUIRES_OK(context,
                   ToStatus(sparse_conv_forward(
                                values.get(), input.dim_size(0),
                                input.flat<float>().data(),
                                has_bias ? bias.flat<float>().data() : nullptr,
                                activation_, output->flat<float>().data(),
                                pool.get(), scratch.get(), &error),
                            error));
  }

 private:
  // What padding around nothing gives.
  void FillWithBias(const Tensor& bias, Tensor* output) const {
    auto elements = output->flat<float>();
    const int64_t filters = attributes_.kernel_shape[3];
    const int64_t pixels =
        attributes_.IsNchw() ? output->dim_size(2) * output->dim_size(3) : 1;
    for (int64_t i = 0; i < elements.size(); ++i) {
      const float sum = bias.NumElements() == 0
                            ? 0
                            : bias.flat<float>()(i / pixels % filters);
      elements(i) = activation_ == kSparseConvRelu && sum < 0 ? 0 : sum;
    }
  }

  SparseConvActivation activation_ = kSparseConvNone;
};

REGISTER_KERNEL_BUILDER(Name(SPARSE_CONV_OP("SparseConv2D")).Device(DEVICE_CPU),
                        SparseConv2DOp);

// --- Gradient of the input ---------------------------------------------------

REGISTER_OP(SPARSE_CONV_OP("SparseConv2DGradInput"))
    .Input("input_shape: int64")
    .Input("positions: Tpositions")
    .Input("values: T")
    .Input("grad_output: float")
    .Output("grad_input: float")
    .Attr("T: {float, bfloat16}")
    .SPARSE_CONV_ATTRIBUTES
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle shape, unused;
      TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(0, &shape));
      TF_RETURN_IF_ERROR(c->WithRank(shape, 4, &shape));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &unused));
      TF_RETURN_IF_ERROR(c->Merge(unused, c->input(2), &unused));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(3), 4, &unused));
      c->set_output(0, shape);
      return OkStatus();
    })
    .Doc(R"doc(
Gradient of SparseConv2D for its input, without bias and activation.

input_shape: [4].
grad_output: Of the output's shape.
grad_input: Of the input's shape.
)doc");

class SparseConv2DGradInputOp : public SparseConvOp {
 public:
  using SparseConvOp::SparseConvOp;

  void Compute(OpKernelContext* context) override {
    const Tensor& gradient = context->input(3);
    TensorShape input_shape, shape;
    OP_REQUIRES_OK(context,
                   TensorShapeUtils::MakeShape(context->input(0).vec<int64_t>(),
                                               &input_shape));
    SparseConvGeometry geometry;
    OP_REQUIRES_OK(context,
                   attributes_.Geometry(input_shape, &geometry, &shape));
    OP_REQUIRES_OK(context, CheckGradient(gradient, shape));
    const Pool pool(context);
    Values values;
    OP_REQUIRES_OK(context, FindValues(geometry, context->input(1),
                                       context->input(2), pool, &values));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, input_shape, &output));
    if (input_shape.num_elements() == 0) return;
    Scratch scratch(context);
    SparseConvError error;
    OP_REQUIRES_OK(context, ToStatus(sparse_conv_grad_input(
                                         values.get(), input_shape.dim_size(0),
                                         gradient.flat<float>().data(),
                                         output->flat<float>().data(),
                                         pool.get(), scratch.get(), &error),
                                     error));
  }
};

REGISTER_KERNEL_BUILDER(
    Name(SPARSE_CONV_OP("SparseConv2DGradInput")).Device(DEVICE_CPU),
    SparseConv2DGradInputOp);

// --- Gradients of values and bias --------------------------------------------

REGISTER_OP(SPARSE_CONV_OP("SparseConv2DGradValues"))
    .Input("input: float")
    .Input("positions: Tpositions")
    .Input("grad_output: float")
    .Output("grad_values: float")
    .Output("grad_bias: float")
    .SPARSE_CONV_ATTRIBUTES
    .SetShapeFn([](InferenceContext* c) {
      Attributes attributes;
      TF_RETURN_IF_ERROR(attributes.Read(c));
      ShapeHandle positions, unused;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &unused));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &positions));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 4, &unused));
      c->set_output(0, positions);
      c->set_output(1, c->Vector(attributes.kernel_shape[3]));
      return OkStatus();
    })
    .Doc(R"doc(
Gradients of SparseConv2D for its values and its bias, without activation.

grad_output: Of the output's shape.
grad_values: [non-zeros].
grad_bias: [filters].
)doc");

class SparseConv2DGradValuesOp : public SparseConvOp {
 public:
  using SparseConvOp::SparseConvOp;

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    const Tensor& gradient = context->input(2);
    SparseConvGeometry geometry;
    TensorShape shape;
    OP_REQUIRES_OK(context,
                   attributes_.Geometry(input.shape(), &geometry, &shape));
    OP_REQUIRES_OK(context, CheckGradient(gradient, shape));
    const Pool pool(context);
    std::shared_ptr<Prepared> prepared;
    OP_REQUIRES_OK(context,
                   FindPattern(geometry, context->input(1), pool, &prepared));
    Tensor *values, *bias;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, context->input(1).shape(), &values));
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       1, TensorShape({geometry.out_channels}), &bias));
    if (shape.num_elements() == 0 || input.NumElements() == 0) {
      values->flat<float>().setZero();
      SumGradient(gradient, bias);
      return;
    }
    Scratch scratch(context);
    SparseConvError error;
    OP_REQUIRES_OK(
        context,
        ToStatus(sparse_conv_grad_values(
                     prepared->pattern(), input.dim_size(0),
                     input.flat<float>().data(), gradient.flat<float>().data(),
                     values->flat<float>().data(), bias->flat<float>().data(),
                     pool.get(), scratch.get(), &error),
                 error));
  }

 private:
  // Of a bias, where the input is empty.
  void SumGradient(const Tensor& gradient, Tensor* bias) const {
    const auto elements = gradient.flat<float>();
    auto sums = bias->flat<float>();
    sums.setZero();
    const int64_t pixels =
        attributes_.IsNchw() ? gradient.dim_size(2) * gradient.dim_size(3) : 1;
    for (int64_t i = 0; i < elements.size(); ++i) {
      sums(i / pixels % sums.size()) += elements(i);
    }
  }
};

REGISTER_KERNEL_BUILDER(
    Name(SPARSE_CONV_OP("SparseConv2DGradValues")).Device(DEVICE_CPU),
    SparseConv2DGradValuesOp);

}  // namespace
}  // namespace tensorflow
