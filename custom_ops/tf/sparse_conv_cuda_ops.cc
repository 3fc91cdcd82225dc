// GPU kernels of the ops of sparse_conv_ops.cc: memory around
// custom_ops/core/sparse_conv/sparse_conv_cuda.h, on TensorFlow's own stream.
// Compiled where CMake found nvcc; without a GPU the kernels are registered and
// never made.
//
// Positions are read on the host. An op keeps what it prepared for positions
// and sizes that it has seen lately, with their last values in it (without a
// graph, layers of equal attributes share one op). The first call with new ones
// copies tables to the device and may wait for that; others do not wait.

#if GOOGLE_CUDA

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda.h"
#include "custom_ops/tf/sparse_conv_attributes.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/tensor_float_32_utils.h"
#include "xla/stream_executor/stream.h"

namespace tensorflow {
namespace {

Status ToStatus(cudaError_t error) {
  if (error == cudaSuccess) return OkStatus();
  return errors::Internal("The sparse convolution could not use CUDA: ",
                          cudaGetErrorString(error));
}

// Not the default stream: TensorFlow's does not wait for that.
cudaStream_t Stream(OpKernelContext* context) {
  return static_cast<cudaStream_t>(context->op_device_context()
                                       ->stream()
                                       ->platform_specific_handle()
                                       .stream);
}

void* Data(const Tensor& tensor) {
  return const_cast<char*>(tensor.tensor_data().data());
}

class SparseConvGpuOp : public OpKernel {
 public:
  // An exact op uses the direct kernel whatever its attribute says.
  SparseConvGpuOp(OpKernelConstruction* context, SparseConvCudaPurpose purpose,
                  bool is_exact)
      : OpKernel(context), purpose_(purpose), is_exact_(is_exact) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("kernel", &kernel_));
  }

 protected:
  // Launches the convolution of `input` into `output`; both have the sizes of
  // the geometry, whichever way it goes.
  Status Run(OpKernelContext* context, const SparseConvGeometry& geometry,
             const Tensor& positions, const Tensor& values, const Tensor& input,
             const float* bias, SparseConvActivation activation,
             Tensor* output) {
    TF_RETURN_IF_ERROR(CheckValues(values, positions));
    const int64_t batch = output->dim_size(0);
    // Launches stay in the order in which values were set.
    std::lock_guard<std::mutex> lock(mutex_);
    TF_RETURN_IF_ERROR(Prepare(context, geometry, positions, batch));
    Prepared& prepared = prepared_.front();
    if (!prepared.has_values || !SameBuffer(prepared.values, values)) {
      TF_RETURN_IF_ERROR(ToStatus(sparse_conv_cuda_set_values(
          prepared.pattern.get(), Data(prepared.image), Data(values),
          values.dtype() == DT_BFLOAT16 ? kSparseConvBfloat16
                                        : kSparseConvFloat32,
          Stream(context))));
      prepared.values = values;
      prepared.has_values = true;
    }
    return ToStatus(sparse_conv_cuda_convolve(
        prepared.pattern.get(), Data(prepared.image), batch,
        input.flat<float>().data(), bias, activation,
        output->flat<float>().data(), Stream(context)));
  }

  // A convolution with an output of this shape.
  SparseConvGeometry WithoutWeights(const SparseConvGeometry& geometry,
                                    const TensorShape& output) const {
    SparseConvGeometry same = {};
    same.height = output.dim_size(attributes_.HeightAxis());
    same.width = output.dim_size(attributes_.HeightAxis() + 1);
    same.in_channels = same.filter_height = same.filter_width = 1;
    same.out_channels = geometry.out_channels;
    same.stride_height = same.stride_width = 1;
    same.dilation_height = same.dilation_width = 1;
    same.groups = 1;
    same.format = geometry.format;
    return same;
  }

  // Gradients of values and bias.
  Status RunGradValues(OpKernelContext* context,
                       const SparseConvGeometry& geometry,
                       const Tensor& positions, const Tensor& input,
                       const Tensor& gradient, float* grad_values,
                       float* grad_bias) {
    const int64_t batch = gradient.dim_size(0);
    std::lock_guard<std::mutex> lock(mutex_);
    TF_RETURN_IF_ERROR(Prepare(context, geometry, positions, batch));
    const Prepared& prepared = prepared_.front();
    Tensor workspace;
    TF_RETURN_IF_ERROR(context->allocate_temp(
        DT_UINT8,
        TensorShape({std::max<int64_t>(sparse_conv_cuda_grad_values_workspace(
                                           prepared.pattern.get(), batch),
                                       1)}),
        &workspace));
    return ToStatus(sparse_conv_cuda_grad_values(
        prepared.pattern.get(), Data(prepared.image), batch,
        input.flat<float>().data(), gradient.flat<float>().data(), grad_values,
        grad_bias, Data(workspace), Stream(context)));
  }

  Attributes attributes_;

 private:
  using Pattern =
      std::unique_ptr<SparseConvCudaPattern, void (*)(SparseConvCudaPattern*)>;

  // Held tensors keep their buffers: no other contents can come to be there.
  struct Prepared {
    Tensor positions;
    int64_t height;  // the rest are attributes
    int64_t width;
    bool may_round;  // to TF32
    Pattern pattern;
    Tensor image;  // in device memory
    Tensor values;
    bool has_values;
  };
  static constexpr size_t kMaxPrepared = 16;

  // Puts what is prepared for these arguments to the front.
  Status Prepare(OpKernelContext* context, const SparseConvGeometry& geometry,
                 const Tensor& positions, int64_t batch) {
    TF_RETURN_IF_ERROR(CheckPositions(positions));
    const bool may_round = tensor_float_32_execution_enabled();
    for (auto it = prepared_.begin(); it != prepared_.end(); ++it) {
      if (SameBuffer(it->positions, positions) &&
          it->height == geometry.height && it->width == geometry.width &&
          it->may_round == may_round) {
        prepared_.splice(prepared_.begin(), prepared_, it);
        return OkStatus();
      }
    }
    SparseConvCudaOptions options = {};
    options.purpose = purpose_;
    options.kernel = is_exact_ || (kernel_.empty() && !may_round)
                         ? "direct"
                         : kernel_.c_str();
    options.batch = batch;
    SparseConvCudaPattern* made = nullptr;
    SparseConvError error;
    const SparseConvCode code =
        positions.dtype() == DT_INT64
            ? sparse_conv_cuda_pattern_create_int64(
                  &geometry, positions.flat<int64_t>().data(),
                  positions.NumElements(), &options, &made, &error)
            : sparse_conv_cuda_pattern_create_int32(
                  &geometry, positions.flat<int32_t>().data(),
                  positions.NumElements(), &options, &made, &error);
    TF_RETURN_IF_ERROR(ToStatus(code, error));
    Pattern pattern(made, sparse_conv_cuda_pattern_free);
    const int64_t bytes = sparse_conv_cuda_image_bytes(made);
    Tensor image;
    TF_RETURN_IF_ERROR(context->allocate_temp(
        DT_UINT8, TensorShape({std::max<int64_t>(bytes, 1)}), &image));
    // From memory that may be paged: it has been read when this returns.
    TF_RETURN_IF_ERROR(ToStatus(
        cudaMemcpyAsync(Data(image), sparse_conv_cuda_image(made), bytes,
                        cudaMemcpyHostToDevice, Stream(context))));
    prepared_.push_front({positions, geometry.height, geometry.width, may_round,
                          std::move(pattern), image, Tensor(), false});
    if (prepared_.size() > kMaxPrepared) prepared_.pop_back();
    return OkStatus();
  }

  const SparseConvCudaPurpose purpose_;
  const bool is_exact_;
  std::string kernel_;
  std::mutex mutex_;
  std::list<Prepared> prepared_;  // the last used first
};

class SparseConv2DGpuOp : public SparseConvGpuOp {
 public:
  explicit SparseConv2DGpuOp(OpKernelConstruction* context)
      : SparseConvGpuOp(context, kSparseConvCudaForward, false) {
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
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &output));
    if (shape.num_elements() == 0) return;
    const float* biases =
        bias.NumElements() > 0 ? bias.flat<float>().data() : nullptr;
    if (input.NumElements() == 0) {
      // What padding around nothing gives is what no weights give.
      OP_REQUIRES_OK(context, Run(context, WithoutWeights(geometry, shape),
                                  Tensor(DT_INT32, TensorShape({0})),
                                  Tensor(DT_FLOAT, TensorShape({0})), input,
                                  biases, activation_, output));
      return;
    }
    OP_REQUIRES_OK(context,
                   Run(context, geometry, context->input(1), context->input(2),
                       input, biases, activation_, output));
  }

 private:
  SparseConvActivation activation_ = kSparseConvNone;
};

REGISTER_KERNEL_BUILDER(Name(SPARSE_CONV_OP("SparseConv2D"))
                            .Device(DEVICE_GPU)
                            .HostMemory("positions"),
                        SparseConv2DGpuOp);

class SparseConv2DGradInputGpuOp : public SparseConvGpuOp {
 public:
  explicit SparseConv2DGradInputGpuOp(OpKernelConstruction* context)
      : SparseConvGpuOp(context, kSparseConvCudaGradInput, false) {}

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
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, input_shape, &output));
    if (input_shape.num_elements() == 0) return;
    OP_REQUIRES_OK(context,
                   Run(context, geometry, context->input(1), context->input(2),
                       gradient, nullptr, kSparseConvNone, output));
  }
};

REGISTER_KERNEL_BUILDER(Name(SPARSE_CONV_OP("SparseConv2DGradInput"))
                            .Device(DEVICE_GPU)
                            .HostMemory("input_shape")
                            .HostMemory("positions"),
                        SparseConv2DGradInputGpuOp);

class SparseConv2DGradValuesGpuOp : public SparseConvGpuOp {
 public:
  explicit SparseConv2DGradValuesGpuOp(OpKernelConstruction* context)
      : SparseConvGpuOp(context, kSparseConvCudaForward, true) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& input = context->input(0);
    const Tensor& positions = context->input(1);
    const Tensor& gradient = context->input(2);
    SparseConvGeometry geometry;
    TensorShape shape;
    OP_REQUIRES_OK(context,
                   attributes_.Geometry(input.shape(), &geometry, &shape));
    OP_REQUIRES_OK(context, CheckGradient(gradient, shape));
    Tensor *values, *bias;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, positions.shape(), &values));
    OP_REQUIRES_OK(context,
                   context->allocate_output(
                       1, TensorShape({geometry.out_channels}), &bias));
    float* grad_values = values->flat<float>().data();
    float* grad_bias = bias->flat<float>().data();
    if (shape.num_elements() > 0 && input.NumElements() == 0) {
      // Only the bias has been read.
      OP_REQUIRES_OK(
          context, ToStatus(cudaMemsetAsync(
                       grad_values, 0, values->TotalBytes(), Stream(context))));
      OP_REQUIRES_OK(context,
                     RunGradValues(context, WithoutWeights(geometry, shape),
                                   Tensor(DT_INT32, TensorShape({0})), input,
                                   gradient, grad_values, grad_bias));
      return;
    }
    OP_REQUIRES_OK(context, RunGradValues(context, geometry, positions, input,
                                          gradient, grad_values, grad_bias));
  }
};

REGISTER_KERNEL_BUILDER(Name(SPARSE_CONV_OP("SparseConv2DGradValues"))
                            .Device(DEVICE_GPU)
                            .HostMemory("positions"),
                        SparseConv2DGradValuesGpuOp);

}  // namespace
}  // namespace tensorflow

#endif  // GOOGLE_CUDA
