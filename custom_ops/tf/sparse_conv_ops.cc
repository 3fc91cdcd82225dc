// TensorFlow ops over the sparse convolution, on TensorFlow's threads.
//
// What follows from the positions of the non-zeros is prepared once: an op
// keeps a reference to the tensors that it has seen last, so that the same
// buffer means the same contents, and a process keeps patterns by contents.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/threadpool.h"

namespace tensorflow {
namespace {

using shape_inference::DimensionHandle;
using shape_inference::InferenceContext;
using shape_inference::ShapeHandle;

// --- Geometry ----------------------------------------------------------------

// The attributes that all ops share.
struct Attributes {
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
          std::all_of(list.begin(), list.end(),
                      [=](int64_t entry) { return entry >= least; })) {
        return OkStatus();
      }
      return errors::InvalidArgument(
          "Invalid value for argument `", name, "`. Expected ", length,
          " integers >= ", least, ". Received: ", Text(list), ".");
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
    // Shapes of 2^31 elements or more: before they are multiplied.
    int64_t size = 1;
    for (int64_t entry : kernel_shape) {
      if (entry >= (int64_t{1} << 31) / size) {
        return errors::InvalidArgument(
            "Expected a kernel of fewer than 2^31 elements. Received: "
            "kernel_shape ",
            Text(kernel_shape), ".");
      }
      size *= entry;
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
    output->set_dim(axis, height);
    output->set_dim(axis + 1, width);
    output->set_dim(ChannelAxis(), kernel_shape[3]);
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

// --- What is kept between calls ----------------------------------------------

using Pattern = std::shared_ptr<SparseConvPattern>;
using Values = std::shared_ptr<SparseConvValues>;

// TensorFlow's threads as the core sees them.
class Pool {
 public:
  explicit Pool(OpKernelContext* context)
      : threads_(context->device()->tensorflow_cpu_worker_threads()->workers) {
    pool_.run = [](void* pool, int64_t items, int64_t cost,
                   void (*body)(void*, int64_t, int64_t), void* data) {
      // TensorFlow counts in cycles.
      static_cast<thread::ThreadPool*>(pool)->ParallelFor(
          items, 3 * cost,
          [=](int64_t begin, int64_t end) { body(data, begin, end); });
    };
    pool_.pool = threads_;
    pool_.num_threads = threads_->NumThreads();
  }

  const SparseConvPool* get() const { return &pool_; }

 private:
  thread::ThreadPool* threads_;
  SparseConvPool pool_ = {};
};

// Temporary tensors as the core's memory.
class Scratch {
 public:
  explicit Scratch(OpKernelContext* context) : context_(context) {
    allocator_.allocate = [](void* scratch, size_t bytes) -> void* {
      return static_cast<Scratch*>(scratch)->Allocate(bytes);
    };
    allocator_.context = this;
  }

  const SparseConvAllocator* get() const { return &allocator_; }

 private:
  void* Allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    Tensor tensor;
    const Status status = context_->allocate_temp(
        DT_UINT8,
        TensorShape({static_cast<int64_t>(std::max<size_t>(bytes, 1))}),
        &tensor);
    if (!status.ok()) return nullptr;
    tensors_.push_back(tensor);
    return const_cast<char*>(tensors_.back().tensor_data().data());
  }

  OpKernelContext* const context_;
  std::mutex mutex_;
  std::list<Tensor> tensors_;
  SparseConvAllocator allocator_ = {};
};

Status MakePattern(const SparseConvGeometry& geometry, const Tensor& positions,
                   const std::string& kernel, const SparseConvPool* pool,
                   Pattern* pattern) {
  SparseConvPattern* made = nullptr;
  SparseConvError error;
  const SparseConvOptions options = {kernel.empty() ? nullptr : kernel.c_str()};
  const SparseConvCode code =
      positions.dtype() == DT_INT64
          ? sparse_conv_pattern_create_int64(
                &geometry, positions.flat<int64_t>().data(),
                positions.NumElements(), &options, pool, &made, &error)
          : sparse_conv_pattern_create_int32(
                &geometry, positions.flat<int32_t>().data(),
                positions.NumElements(), &options, pool, &made, &error);
  TF_RETURN_IF_ERROR(ToStatus(code, error));
  pattern->reset(made, sparse_conv_pattern_release);
  return OkStatus();
}

// Patterns of the process by contents, the last used first.
class PatternCache {
 public:
  static PatternCache& Get() {
    static PatternCache* const cache = new PatternCache();
    return *cache;
  }

  Status Find(const SparseConvGeometry& geometry, const Tensor& positions,
              const std::string& kernel, const SparseConvPool* pool,
              Pattern* pattern) {
    Entry entry;
    entry.geometry = Numbers(geometry);
    entry.kernel = kernel;
    entry.positions = positions;
    entry.hash = Hash(positions);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto it = entries_.begin(); it != entries_.end(); ++it) {
        if (it->Matches(entry)) {
          *pattern = it->pattern;
          entries_.splice(entries_.begin(), entries_, it);
          return OkStatus();
        }
      }
    }
    TF_RETURN_IF_ERROR(
        MakePattern(geometry, positions, kernel, pool, &entry.pattern));
    *pattern = entry.pattern;
    SparseConvPlan plan;
    SparseConvError error;
    if (sparse_conv_pattern_plan(pattern->get(), 1, 1, &plan, &error) ==
        kSparseConvOk) {
      entry.bytes = plan.prepared_bytes;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    bytes_ += entry.bytes;
    entries_.push_front(std::move(entry));
    while (entries_.size() > 1 &&
           (entries_.size() > kMaxPatterns || bytes_ > kMaxBytes)) {
      bytes_ -= entries_.back().bytes;
      entries_.pop_back();  // those in use live on
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kMaxPatterns = 512;
  static constexpr int64_t kMaxBytes = int64_t{1} << 30;
  using GeometryNumbers = std::array<int64_t, 16>;

  struct Entry {
    GeometryNumbers geometry;
    std::string kernel;
    Tensor positions;
    uint64_t hash;
    Pattern pattern;
    int64_t bytes = 0;

    bool Matches(const Entry& other) const {
      return hash == other.hash && geometry == other.geometry &&
             kernel == other.kernel &&
             positions.dtype() == other.positions.dtype() &&
             positions.tensor_data() == other.positions.tensor_data();
    }
  };

  static uint64_t Hash(const Tensor& positions) {
    const char* data = positions.tensor_data().data();
    uint64_t hash = 0x9E3779B97F4A7C15u;
    // Words of two positions; the last one of an odd number by itself.
    for (size_t left = positions.tensor_data().size(); left > 0;) {
      uint64_t word = 0;
      const size_t bytes = std::min<size_t>(left, sizeof(word));
      std::memcpy(&word, data, bytes);
      hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
      hash ^= hash >> 32;
      data += bytes;
      left -= bytes;
    }
    return hash;
  }

  static GeometryNumbers Numbers(const SparseConvGeometry& g) {
    return {g.height,          g.width,
            g.in_channels,     g.filter_height,
            g.filter_width,    g.out_channels,
            g.stride_height,   g.stride_width,
            g.dilation_height, g.dilation_width,
            g.pad_top,         g.pad_bottom,
            g.pad_left,        g.pad_right,
            g.groups,          static_cast<int64_t>(g.format)};
  }

  std::mutex mutex_;
  std::list<Entry> entries_;
  int64_t bytes_ = 0;
};

bool SameBuffer(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.NumElements() == b.NumElements() &&
         a.tensor_data().data() == b.tensor_data().data();
}

bool SameGeometry(const SparseConvGeometry& a, const SparseConvGeometry& b) {
  return a.height == b.height && a.width == b.width &&
         a.in_channels == b.in_channels;  // the rest are attributes
}

class SparseConvOp : public OpKernel {
 public:
  explicit SparseConvOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("kernel", &kernel_));
  }

 protected:
  // Held tensors keep their buffers: no other contents can come to be there.
  Status FindPattern(OpKernelContext* context,
                     const SparseConvGeometry& geometry,
                     const Tensor& positions, const Pool& pool,
                     Pattern* pattern) {
    if (positions.dims() != 1) {
      return errors::InvalidArgument(
          "Expected positions of one axis. Received: ",
          positions.shape().DebugString(), ".");
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (pattern_ == nullptr || !SameBuffer(positions_, positions) ||
        !SameGeometry(*sparse_conv_pattern_geometry(pattern_.get()),
                      geometry)) {
      Pattern found;
      TF_RETURN_IF_ERROR(PatternCache::Get().Find(geometry, positions, kernel_,
                                                  pool.get(), &found));
      pattern_ = found;
      positions_ = positions;
      values_ = nullptr;
    }
    *pattern = pattern_;
    return OkStatus();
  }

  Status FindValues(OpKernelContext* context,
                    const SparseConvGeometry& geometry, const Tensor& positions,
                    const Tensor& values, const Pool& pool, Values* found) {
    if (values.dims() != 1 || values.NumElements() != positions.NumElements()) {
      return errors::InvalidArgument(
          "Expected a value for each position. Received: values of shape ",
          values.shape().DebugString(), ", positions of shape ",
          positions.shape().DebugString(), ".");
    }
    Pattern pattern;
    TF_RETURN_IF_ERROR(
        FindPattern(context, geometry, positions, pool, &pattern));
    std::lock_guard<std::mutex> lock(mutex_);
    if (values_ == nullptr || values_pattern_ != pattern ||
        !SameBuffer(values_tensor_, values)) {
      SparseConvValues* made = nullptr;
      SparseConvError error;
      TF_RETURN_IF_ERROR(ToStatus(
          sparse_conv_values_create(pattern.get(), values.tensor_data().data(),
                                    values.dtype() == DT_BFLOAT16
                                        ? kSparseConvBfloat16
                                        : kSparseConvFloat32,
                                    pool.get(), &made, &error),
          error));
      values_.reset(made, sparse_conv_values_release);
      values_tensor_ = values;
      values_pattern_ = pattern;
    }
    *found = values_;
    return OkStatus();
  }

  // The gradient of the output has the output's shape.
  static Status CheckGradient(const Tensor& gradient,
                              const TensorShape& output) {
    if (gradient.shape() == output) return OkStatus();
    return errors::InvalidArgument(
        "Expected a gradient of the output's shape ", output.DebugString(),
        ". Received: ", gradient.shape().DebugString(), ".");
  }

  Attributes attributes_;

 private:
  std::string kernel_;
  std::mutex mutex_;
  Tensor positions_;
  Pattern pattern_;
  Tensor values_tensor_;
  Pattern values_pattern_;
  Values values_;
};

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
  return OkStatus();
}

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

REGISTER_OP("TernGradSSL>SparseConv2D")
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
    const bool has_bias = bias.NumElements() > 0;
    OP_REQUIRES(
        context,
        !has_bias ||
            (bias.dims() == 1 && bias.dim_size(0) == geometry.out_channels),
        errors::InvalidArgument(
            "Expected a bias of shape [", geometry.out_channels,
            "] for the kernel ", Attributes::Text(attributes_.kernel_shape),
            ". Received: ", bias.shape().DebugString(), "."));
    const Pool pool(context);
    Values values;
    OP_REQUIRES_OK(context, FindValues(context, geometry, context->input(1),
                                       context->input(2), pool, &values));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &output));
    if (shape.num_elements() == 0) return;
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
  SparseConvActivation activation_ = kSparseConvNone;
};

REGISTER_KERNEL_BUILDER(Name("TernGradSSL>SparseConv2D").Device(DEVICE_CPU),
                        SparseConv2DOp);

// --- Gradient of the input ---------------------------------------------------

REGISTER_OP("TernGradSSL>SparseConv2DGradInput")
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
    OP_REQUIRES_OK(context, FindValues(context, geometry, context->input(1),
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
    Name("TernGradSSL>SparseConv2DGradInput").Device(DEVICE_CPU),
    SparseConv2DGradInputOp);

// --- Gradients of values and bias --------------------------------------------

REGISTER_OP("TernGradSSL>SparseConv2DGradValues")
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
    Pattern pattern;
    OP_REQUIRES_OK(context, FindPattern(context, geometry, context->input(1),
                                        pool, &pattern));
    Tensor *values, *bias;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, context->input(1).shape(), &values));
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       1, TensorShape({geometry.out_channels}), &bias));
    if (shape.num_elements() == 0) {
      values->flat<float>().setZero();
      bias->flat<float>().setZero();
      return;
    }
    Scratch scratch(context);
    SparseConvError error;
    OP_REQUIRES_OK(
        context,
        ToStatus(
            sparse_conv_grad_values(
                pattern.get(), input.dim_size(0), input.flat<float>().data(),
                gradient.flat<float>().data(), values->flat<float>().data(),
                bias->flat<float>().data(), pool.get(), scratch.get(), &error),
            error));
  }
};

REGISTER_KERNEL_BUILDER(
    Name("TernGradSSL>SparseConv2DGradValues").Device(DEVICE_CPU),
    SparseConv2DGradValuesOp);

}  // namespace
}  // namespace tensorflow
