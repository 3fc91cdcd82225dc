// The attributes that the ops of the sparse convolution share, and the shapes
// that follow from them.

#ifndef CUSTOM_OPS_TF_SPARSE_CONV_ATTRIBUTES_H_
#define CUSTOM_OPS_TF_SPARSE_CONV_ATTRIBUTES_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

// In front of the name of each op. TensorFlow's message to a process that loads
// a model without the library holds nothing else: it says what to import.
#define SPARSE_CONV_OP(name) "TernGradSSL>ImportCustomOps>" name

namespace tensorflow {
namespace {

struct Attributes {
  static constexpr int64_t kLimit = int64_t{1} << 31;

  std::vector<int64_t> kernel_shape;  // height, width, channels of a group, out
  std::vector<int64_t> strides;       // height, width
  std::vector<int64_t> dilations;
  std::string padding;
  std::vector<int64_t> explicit_paddings;  // top, bottom, left, right
  int64_t groups = 1;
  std::string data_format;

  // Of an op or of a shape inference.
  template <typename Context>
  Status Read(Context* context) {
    std::vector<int64_t>* const lists[] = {&kernel_shape, &strides, &dilations,
                                           &explicit_paddings};
    const char* const names[] = {"kernel_shape", "strides", "dilations",
                                 "explicit_paddings"};
    for (int i = 0; i < 4; ++i) {
      TF_RETURN_IF_ERROR(context->GetAttr(names[i], lists[i]));
    }
    TF_RETURN_IF_ERROR(context->GetAttr("padding", &padding));
    TF_RETURN_IF_ERROR(context->GetAttr("groups", &groups));
    TF_RETURN_IF_ERROR(context->GetAttr("data_format", &data_format));
    const auto check = [](const char* name, const std::vector<int64_t>& list,
                          size_t length, int64_t least) {
      if (list.size() == length &&
          std::all_of(list.begin(), list.end(), [=](int64_t entry) {
            return entry >= least && entry < kLimit;
          })) {
        return OkStatus();
      }
      return errors::InvalidArgument(
          "Invalid value for argument `", name, "`. Expected ", length,
          " integers in [", least, ", 2^31). Received: ", Text(list), ".");
    };
    TF_RETURN_IF_ERROR(check("kernel_shape", kernel_shape, 4, 1));
    TF_RETURN_IF_ERROR(check("strides", strides, 2, 1));
    TF_RETURN_IF_ERROR(check("dilations", dilations, 2, 1));
    if (padding == "EXPLICIT") {
      TF_RETURN_IF_ERROR(check("explicit_paddings", explicit_paddings, 4, 0));
    }
    if (kernel_shape[3] % groups != 0) {
      return errors::InvalidArgument(
          "The ", kernel_shape[3], " filters of the kernel ",
          Text(kernel_shape), " do not divide into ", groups, " groups.");
    }
    int64_t size = 1;
    for (int64_t entry : kernel_shape) {
      size *= entry;
      if (size >= kLimit) {
        return errors::InvalidArgument(
            "Expected a kernel of fewer than 2^31 elements. Received: "
            "kernel_shape ",
            Text(kernel_shape), ".");
      }
    }
    return OkStatus();
  }

  static std::string Text(const std::vector<int64_t>& list) {
    std::string text = "[";
    for (size_t i = 0; i < list.size(); ++i) {
      text += (i ? "," : "") + std::to_string(list[i]);
    }
    return text + "]";
  }

  bool IsNchw() const { return data_format == "NCHW"; }
  int HeightAxis() const { return IsNchw() ? 2 : 1; }
  int ChannelAxis() const { return IsNchw() ? 1 : 3; }

  Status CheckChannels(int64_t channels, const std::string& shape) const {
    if (channels == kernel_shape[2] * groups) return OkStatus();
    return errors::InvalidArgument(
        "The input ", shape, " in the format ", data_format, " has ", channels,
        " channels, the kernel ", Text(kernel_shape), " with ", groups,
        " groups reads ", kernel_shape[2] * groups, ".");
  }

  Status CheckBias(int64_t length, const std::string& shape) const {
    if (length == 0 || length == kernel_shape[3]) return OkStatus();
    return errors::InvalidArgument(
        "Expected a bias of shape [", kernel_shape[3], "] for the kernel ",
        Text(kernel_shape), ". Received: ", shape, ".");
  }

  // Output size and pads of one axis (0 height, 1 width), as tf.nn.conv2d.
  Status Window(int axis, int64_t size, int64_t* output, int64_t* before,
                int64_t* after) const {
    const int64_t window = (kernel_shape[axis] - 1) * dilations[axis] + 1;
    const int64_t stride = strides[axis];
    if (padding == "SAME") {
      *output = (size + stride - 1) / stride;
      const int64_t pad =
          std::max<int64_t>(0, (*output - 1) * stride + window - size);
      *before = pad / 2;
      *after = pad - *before;
      return OkStatus();
    }
    *before = padding == "VALID" ? 0 : explicit_paddings[2 * axis];
    *after = padding == "VALID" ? 0 : explicit_paddings[2 * axis + 1];
    *output = (size + *before + *after - window + stride) / stride;
    if (*output < 0) {
      return errors::InvalidArgument(
          "Computed output size would be negative: ", *output, " [input size ",
          size, ", pads ", *before, " and ", *after, ", effective filter size ",
          window, ", stride ", stride, "]");
    }
    return OkStatus();
  }

  // For an input of this shape, and the shape of the output.
  Status Geometry(const TensorShape& input, SparseConvGeometry* geometry,
                  TensorShape* output) const {
    if (input.dims() != 4) {
      return errors::InvalidArgument(
          "Expected an input of four axes. Received: ", input.DebugString(),
          ".");
    }
    const int axis = HeightAxis();
    TF_RETURN_IF_ERROR(
        CheckChannels(input.dim_size(ChannelAxis()), input.DebugString()));
    *geometry = {};
    geometry->height = input.dim_size(axis);
    geometry->width = input.dim_size(axis + 1);
    geometry->in_channels = input.dim_size(ChannelAxis());
    geometry->filter_height = kernel_shape[0];
    geometry->filter_width = kernel_shape[1];
    geometry->out_channels = kernel_shape[3];
    geometry->stride_height = strides[0];
    geometry->stride_width = strides[1];
    geometry->dilation_height = dilations[0];
    geometry->dilation_width = dilations[1];
    geometry->groups = groups;
    geometry->format = IsNchw() ? kSparseConvNchw : kSparseConvNhwc;
    int64_t height, width;
    TF_RETURN_IF_ERROR(Window(0, geometry->height, &height, &geometry->pad_top,
                              &geometry->pad_bottom));
    TF_RETURN_IF_ERROR(Window(1, geometry->width, &width, &geometry->pad_left,
                              &geometry->pad_right));
    *output = input;
    TF_RETURN_IF_ERROR(output->SetDimWithStatus(axis, height));
    TF_RETURN_IF_ERROR(output->SetDimWithStatus(axis + 1, width));
    TF_RETURN_IF_ERROR(
        output->SetDimWithStatus(ChannelAxis(), kernel_shape[3]));
    return OkStatus();
  }
};

Status ToStatus(SparseConvCode code, const SparseConvError& error) {
  switch (code) {
    case kSparseConvOk:
      return OkStatus();
    case kSparseConvOutOfMemory:
      return errors::ResourceExhausted(error.message);
    default:
      return errors::InvalidArgument(error.message);
  }
}

inline Status CheckPositions(const Tensor& positions) {
  if (positions.dims() == 1) return OkStatus();
  return errors::InvalidArgument("Expected positions of one axis. Received: ",
                                 positions.shape().DebugString(), ".");
}

inline Status CheckValues(const Tensor& values, const Tensor& positions) {
  if (values.dims() == 1 && values.NumElements() == positions.NumElements()) {
    return OkStatus();
  }
  return errors::InvalidArgument(
      "Expected a value for each position. Received: values of shape ",
      values.shape().DebugString(), ", positions of shape ",
      positions.shape().DebugString(), ".");
}

// The gradient of the output has the output's shape.
inline Status CheckGradient(const Tensor& gradient, const TensorShape& output) {
  if (gradient.shape() == output) return OkStatus();
  return errors::InvalidArgument(
      "Expected a gradient of the output's shape ", output.DebugString(),
      ". Received: ", gradient.shape().DebugString(), ".");
}

// Tensors that are held keep their buffers: the same one has the same contents.
inline bool SameBuffer(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.NumElements() == b.NumElements() &&
         a.tensor_data().data() == b.tensor_data().data();
}

}  // namespace
}  // namespace tensorflow

#define SPARSE_CONV_ATTRIBUTES                        \
  Attr("Tpositions: {int32, int64}")                  \
      .Attr("kernel_shape: list(int)")                \
      .Attr("strides: list(int) = [1, 1]")            \
      .Attr("dilations: list(int) = [1, 1]")          \
      .Attr("padding: {'SAME', 'VALID', 'EXPLICIT'}") \
      .Attr("explicit_paddings: list(int) = []")      \
      .Attr("groups: int >= 1 = 1")                   \
      .Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'") \
      .Attr("kernel: string = ''")

#endif  // CUSTOM_OPS_TF_SPARSE_CONV_ATTRIBUTES_H_
