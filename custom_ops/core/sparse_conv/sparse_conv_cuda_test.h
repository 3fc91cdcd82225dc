// The cases that the CUDA convolution must pass, beside the CPU's scalar
// kernel: on a GPU in sparse_conv_cuda_test.cu.cc, emulated by the host in
// sparse_conv_cuda_host_test.cc.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_TEST_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_TEST_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_launch_inl.h"
#include "custom_ops/core/sparse_conv/sparse_conv_test.h"

namespace sparse_conv {
namespace cuda {

// The interface of sparse_conv_cuda.h, and memory for it. Calls check for
// errors.
class Twin {
 public:
  virtual ~Twin() = default;

  // Memory aligned to 256 bytes, freed with the twin.
  virtual void* Allocate(size_t bytes) = 0;
  virtual void FreeAll() = 0;
  virtual void Upload(const void* host, size_t bytes, void* device) = 0;
  virtual void Download(const void* device, size_t bytes, void* host) = 0;

  virtual void SetValues(const SparseConvCudaPattern* pattern, void* memory,
                         const void* values, SparseConvDtype dtype) = 0;
  virtual void Convolve(const SparseConvCudaPattern* pattern,
                        const void* memory, int64_t batch, const float* input,
                        const float* bias, SparseConvActivation activation,
                        float* output) = 0;
  virtual void GradValues(const SparseConvCudaPattern* pattern,
                          const void* memory, int64_t batch, const float* input,
                          const float* grad_output, float* grad_values,
                          float* grad_bias) = 0;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// An array in device memory, `offset` floats after an aligned address, whose
// neighbours are watched.
class DeviceArray {
 public:
  DeviceArray(std::vector<float> values, int64_t offset, Twin* twin)
      : size_(values.size()), first_(kGuard + offset), twin_(twin) {
    std::vector<float> all(size_ + 2 * kGuard + offset, kMark);
    std::copy(values.begin(), values.end(), all.begin() + first_);
    memory_ = static_cast<float*>(twin->Allocate(all.size() * sizeof(float)));
    twin->Upload(all.data(), all.size() * sizeof(float), memory_);
  }
  float* data() const { return memory_ + first_; }
  std::vector<float> Read() const {
    std::vector<float> all(first_ + size_ + kGuard);
    twin_->Download(memory_, all.size() * sizeof(float), all.data());
    for (int64_t i = 0; i < first_; ++i) CHECK(all[i] == kMark);
    for (size_t i = first_ + size_; i < all.size(); ++i) {
      CHECK(all[i] == kMark);
    }
    return std::vector<float>(all.begin() + first_,
                              all.begin() + first_ + size_);
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr float kMark = 1234.5f;
  const size_t size_;
  const int64_t first_;
  Twin* const twin_;
  float* memory_;
};

// How weights are arranged.
enum Arrangement {
  kRandomWeights,
  kColumnsAndRows,  // some columns and filters are dead
  kBlocks,          // of 16 filters and 16 channels
  kNoWeights,
  kAllWeights,
  kArrangements
};

struct CudaCase {
  SparseConvGeometry geometry;
  int64_t batch;
  int64_t out_height;
  int64_t out_width;
  std::vector<int64_t> positions;
  std::vector<float> weights;
  std::vector<float> input;
  std::vector<float> grad_output;
  std::vector<float> bias;

  std::string Name() const {
    const SparseConvGeometry& g = geometry;
    char text[256];
    std::snprintf(
        text, sizeof(text),
        "batch %lld, %lldx%lldx%lld, filter %lldx%lldx%lld, stride %lld %lld, "
        "dilation %lld %lld, pads %lld %lld %lld %lld, groups %lld, %s, nnz "
        "%zu",
        (long long)batch, (long long)g.height, (long long)g.width,
        (long long)g.in_channels, (long long)g.filter_height,
        (long long)g.filter_width, (long long)g.out_channels,
        (long long)g.stride_height, (long long)g.stride_width,
        (long long)g.dilation_height, (long long)g.dilation_width,
        (long long)g.pad_top, (long long)g.pad_bottom, (long long)g.pad_left,
        (long long)g.pad_right, (long long)g.groups,
        g.format == kSparseConvNhwc ? "NHWC" : "NCHW", positions.size());
    return text;
  }
};

inline CudaCase RandomCudaCase(Random* random) {
  CudaCase c;
  SparseConvGeometry& g = c.geometry;
  const bool large = random->Below(6) == 0;
  const bool wide = random->Below(4) == 0;
  g.groups = random->Below(3) == 0 ? random->Between(2, 3) : 1;
  g.height = random->Between(1, large ? 30 : 9);
  g.width = random->Between(1, large ? 40 : 13);
  g.in_channels =
      g.groups * (random->Below(2) == 0 ? random->Between(1, 11)
                                        : 4 * random->Between(1, 6));
  g.out_channels = g.groups * random->Between(1, wide ? 80 : 21);
  g.filter_height = random->Between(1, 4);
  g.filter_width = random->Between(1, random->Below(4) == 0 ? 7 : 3);
  if (random->Below(4) == 0) g.filter_height = g.filter_width = 1;
  g.stride_height = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.stride_width = random->Below(2) == 0 ? 1 : random->Between(1, 4);
  g.dilation_height = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.dilation_width = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.pad_top = random->Below(3);
  g.pad_bottom = random->Below(3);
  g.pad_left = random->Below(3);
  g.pad_right = random->Below(3);
  if (random->Below(8) == 0) g.pad_left = random->Below(9);
  g.format = random->Below(2) == 0 ? kSparseConvNhwc : kSparseConvNchw;
  const int64_t batches[] = {0, 1, 1, 2, 3, 5};
  c.batch = batches[random->Below(6)];
  SparseConvError error;
  CHECK(sparse_conv_output_size(&g, &c.out_height, &c.out_width, &error) ==
        kSparseConvOk);

  const int64_t group_channels = g.in_channels / g.groups;
  const int64_t columns = g.filter_height * g.filter_width * group_channels;
  const int64_t kind = random->Below(kArrangements);
  const int64_t density = random->Between(2, 60);
  std::vector<bool> live(columns + g.out_channels);
  for (size_t i = 0; i < live.size(); ++i) live[i] = random->Below(3) != 0;
  const int64_t salt = random->Below(1000);
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      bool take = kind == kAllWeights;
      if (kind == kRandomWeights) take = random->Below(100) < density;
      if (kind == kColumnsAndRows) take = live[column] && live[columns + o];
      if (kind == kBlocks) {
        const int64_t block =
            (column / group_channels * 16 + column % group_channels / 16) * 64 +
            o / 16;
        take = (block + salt) * 7919 % 100 < density;
      }
      if (!take) continue;
      c.positions.push_back(column * g.out_channels + o);
      c.weights.push_back(random->Normal());
    }
  }
  c.input.resize(c.batch * g.height * g.width * g.in_channels);
  c.grad_output.resize(c.batch * c.out_height * c.out_width * g.out_channels);
  c.bias.resize(g.out_channels);
  for (std::vector<float>* values : {&c.input, &c.grad_output, &c.bias}) {
    for (float& value : *values) value = random->Normal();
  }
  return c;
}

// As tensor cores see it.
inline float Rounded(float value, KernelKind kind) {
  if (kind == kTf32) return BitCast<float>(ToTf32(value));
  if (kind == kBf16) return BitCast<float>(ToBf16(value) << 16);
  return value;
}

// What the CPU's scalar kernel makes of an array, and of its magnitudes.
struct CpuResult {
  std::vector<float> values;
  std::vector<float> magnitudes;
};

inline CpuResult CpuConvolve(const CudaCase& c, SparseConvCudaPurpose purpose,
                             const std::vector<float>& weights,
                             const std::vector<float>& input, const float* bias,
                             bool relu) {
  SparseConvPattern* pattern = nullptr;
  SparseConvError error;
  const SparseConvOptions options = {"scalar"};
  CHECK(sparse_conv_pattern_create_int64(
            &c.geometry, c.positions.data(),
            static_cast<int64_t>(c.positions.size()), &options, nullptr,
            &pattern, &error) == kSparseConvOk);
  const bool forward = purpose == kSparseConvCudaForward;
  const auto run = [&](const std::vector<float>& weights,
                       const std::vector<float>& input, const float* bias,
                       bool relu) {
    SparseConvValues* values = nullptr;
    CHECK(sparse_conv_values_create(pattern, weights.data(), kSparseConvFloat32,
                                    nullptr, &values, &error) == kSparseConvOk);
    std::vector<float> output(forward ? c.grad_output.size() : c.input.size());
    const SparseConvCode code =
        forward
            ? sparse_conv_forward(values, c.batch, input.data(), bias,
                                  relu ? kSparseConvRelu : kSparseConvNone,
                                  output.data(), nullptr, nullptr, &error)
            : sparse_conv_grad_input(values, c.batch, input.data(),
                                     output.data(), nullptr, nullptr, &error);
    CHECK(code == kSparseConvOk);
    sparse_conv_values_release(values);
    return output;
  };
  const auto magnitudes = [](std::vector<float> values) {
    for (float& value : values) value = std::fabs(value);
    return values;
  };
  CpuResult result;
  result.values = run(weights, input, bias, relu);
  result.magnitudes =
      run(magnitudes(weights), magnitudes(input), nullptr, false);
  sparse_conv_pattern_release(pattern);
  return result;
}

// sparse_conv_grad_values, and of magnitudes; the gradient of the bias follows
// that of the values.
inline CpuResult CpuGradValues(const CudaCase& c) {
  SparseConvPattern* pattern = nullptr;
  SparseConvError error;
  const SparseConvOptions options = {"scalar"};
  CHECK(sparse_conv_pattern_create_int64(
            &c.geometry, c.positions.data(),
            static_cast<int64_t>(c.positions.size()), &options, nullptr,
            &pattern, &error) == kSparseConvOk);
  const auto run = [&](const std::vector<float>& input,
                       const std::vector<float>& grad_output) {
    std::vector<float> grads(c.positions.size() + c.bias.size());
    CHECK(sparse_conv_grad_values(pattern, c.batch, input.data(),
                                  grad_output.data(), grads.data(),
                                  grads.data() + c.positions.size(), nullptr,
                                  nullptr, &error) == kSparseConvOk);
    return grads;
  };
  const auto magnitudes = [](std::vector<float> values) {
    for (float& value : values) value = std::fabs(value);
    return values;
  };
  CpuResult result;
  result.values = run(c.input, c.grad_output);
  result.magnitudes = run(magnitudes(c.input), magnitudes(c.grad_output));
  sparse_conv_pattern_release(pattern);
  return result;
}

// A pattern and its image in device memory.
class DevicePattern {
 public:
  DevicePattern(const CudaCase& c, const SparseConvCudaOptions& options,
                Twin* twin)
      : twin_(twin) {
    SparseConvError error;
    const SparseConvCode code = sparse_conv_cuda_pattern_create_int64(
        &c.geometry, c.positions.data(),
        static_cast<int64_t>(c.positions.size()), &options, &pattern_, &error);
    if (code != kSparseConvOk) {
      // Only patches may have no room.
      CHECK(options.columns == 1);
      pattern_ = nullptr;
      return;
    }
    const int64_t bytes = sparse_conv_cuda_image_bytes(pattern_);
    CHECK(bytes % 16 == 0);
    memory_ = twin->Allocate(bytes);
    twin->Upload(sparse_conv_cuda_image(pattern_), bytes, memory_);
  }
  ~DevicePattern() { sparse_conv_cuda_pattern_free(pattern_); }

  const SparseConvCudaPattern* get() const { return pattern_; }

  void SetValues(const std::vector<float>& weights) {
    void* values = twin_->Allocate(weights.size() * sizeof(float) + 1);
    twin_->Upload(weights.data(), weights.size() * sizeof(float), values);
    twin_->SetValues(pattern_, memory_, values, kSparseConvFloat32);
  }
  void SetBf16Values(const std::vector<float>& weights) {
    std::vector<uint16_t> halves;
    for (float weight : weights) {
      halves.push_back(static_cast<uint16_t>(ToBf16(weight)));
    }
    void* values = twin_->Allocate(halves.size() * 2 + 1);
    twin_->Upload(halves.data(), halves.size() * 2, values);
    twin_->SetValues(pattern_, memory_, values, kSparseConvBfloat16);
  }
  // Computed over NaN.
  std::vector<float> Convolve(const CudaCase& c,
                              const std::vector<float>& input,
                              int64_t input_offset, bool bias, bool relu) {
    const bool forward = pattern_->purpose == kSparseConvCudaForward;
    const DeviceArray device_input(input, input_offset, twin_);
    const DeviceArray device_bias(c.bias, 0, twin_);
    const DeviceArray output(
        std::vector<float>(forward ? c.grad_output.size() : c.input.size(),
                           kNan),
        1, twin_);
    twin_->Convolve(pattern_, memory_, c.batch, device_input.data(),
                    bias ? device_bias.data() : nullptr,
                    relu ? kSparseConvRelu : kSparseConvNone, output.data());
    return output.Read();
  }
  // Of values and bias, one after the other.
  std::vector<float> GradValues(const CudaCase& c) {
    const DeviceArray input(c.input, 3, twin_);
    const DeviceArray grad_output(c.grad_output, 1, twin_);
    const DeviceArray values(std::vector<float>(c.positions.size(), kNan), 1,
                             twin_);
    const DeviceArray bias(std::vector<float>(c.bias.size(), kNan), 1, twin_);
    twin_->GradValues(pattern_, memory_, c.batch, input.data(),
                      grad_output.data(), values.data(), bias.data());
    std::vector<float> grads = values.Read();
    const std::vector<float> of_bias = bias.Read();
    grads.insert(grads.end(), of_bias.begin(), of_bias.end());
    return grads;
  }

 private:
  Twin* const twin_;
  SparseConvCudaPattern* pattern_ = nullptr;
  void* memory_ = nullptr;
};

inline std::string NameOf(const SparseConvCudaPattern* pattern) {
  SparseConvCudaPlan plan;
  sparse_conv_cuda_pattern_plan(pattern, &plan);
  return std::string(plan.kernel) + " tile " +
         std::to_string(plan.tile_filters) + " pixels " +
         std::to_string(plan.pixels) +
         (plan.is_gathered ? " gathered" : " patches");
}

// |actual - expected| <= 4e-6 * sum of magnitudes + 1e-6; sums of tensor cores
// are rounded towards zero at each step.
inline void CheckNear(const CudaCase& c, const SparseConvCudaPattern* pattern,
                      const CpuResult& expected,
                      const std::vector<float>& actual) {
  const double relative = pattern->variant.kind == kDirect ? 4e-6 : 2e-5;
  CHECK(actual.size() == expected.values.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::fabs(double{actual[i]} - expected.values[i]);
    if (!(difference <= relative * expected.magnitudes[i] + 1e-6)) {
      std::printf(
          "%s, %s: %s\n[%zu] is %.9g, expected %.9g\n", NameOf(pattern).c_str(),
          pattern->purpose == kSparseConvCudaForward ? "forward" : "grad_input",
          c.Name().c_str(), i, actual[i], expected.values[i]);
      std::exit(1);
    }
  }
}

// Every kernel, number of pixels and purpose, in turn, on random convolutions.
inline void TestRandomCases(int64_t count, Twin* twin) {
  Random random(1);
  std::set<std::string> seen;
  const char* const kernels[] = {"direct", "tf32", "bf16"};
  for (int64_t i = 0; i < count; ++i) {
    const CudaCase c = RandomCudaCase(&random);
    SparseConvCudaOptions options = {};
    options.purpose =
        i % 3 == 2 ? kSparseConvCudaGradInput : kSparseConvCudaForward;
    options.kernel = kernels[random.Below(3)];
    options.batch = random.Below(2) == 0 ? c.batch : random.Below(9);
    options.tile_filters = 16 << random.Below(3);
    options.pixels = static_cast<int>(kPixelStep * random.Between(1, 4));
    options.columns = static_cast<int>(random.Between(1, 2));
    if (i % 4 == 3) {  // what the model takes
      options.kernel = random.Below(2) == 0 ? nullptr : options.kernel;
      options.tile_filters = options.pixels = options.columns = 0;
    }
    DevicePattern pattern(c, options, twin);
    if (pattern.get() == nullptr) continue;
    const bool forward = options.purpose == kSparseConvCudaForward;
    const bool bias = forward && random.Below(2) == 0;
    const bool relu = forward && random.Below(2) == 0;
    const KernelKind kind = pattern.get()->variant.kind;
    const auto rounded = [&](std::vector<float> values) {
      for (float& value : values) value = Rounded(value, kind);
      return values;
    };
    const std::vector<float>& input = forward ? c.input : c.grad_output;
    // Values are set twice: none of the first ones may stay.
    pattern.SetValues(std::vector<float>(c.weights.size(), kNan));
    const bool halves = random.Below(4) == 0;
    std::vector<float> weights = rounded(c.weights);
    if (halves) {
      for (float& weight : weights) weight = Rounded(weight, kBf16);
      pattern.SetBf16Values(weights);
    } else {
      pattern.SetValues(c.weights);
    }
    const CpuResult expected =
        CpuConvolve(c, options.purpose, weights, rounded(input),
                    bias ? c.bias.data() : nullptr, relu);
    CheckNear(
        c, pattern.get(), expected,
        pattern.Convolve(c, input, random.Below(2) == 0 ? 0 : 3, bias, relu));
    if (!expected.values.empty()) seen.insert(NameOf(pattern.get()));
    twin->FreeAll();
  }
  // 4 numbers of pixels by 2 ways of columns by (1 + 3 + 3) kernels.
  CHECK(count < 1000 || seen.size() == 56);
}

inline void TestGradValues(int64_t count, Twin* twin) {
  Random random(4);
  for (int64_t i = 0; i < count; ++i) {
    CudaCase c = RandomCudaCase(&random);
    SparseConvCudaOptions options = {};
    options.kernel = "direct";
    options.batch = random.Below(2) == 0 ? c.batch : 1;
    options.pixels = static_cast<int>(kPixelStep * random.Between(0, 4));
    DevicePattern pattern(c, options, twin);
    CheckNear(c, pattern.get(), CpuGradValues(c), pattern.GradValues(c));
    if (!c.input.empty()) {
      c.input[random.Below(static_cast<int64_t>(c.input.size()))] = kNan;
      const std::vector<float> expected = CpuGradValues(c).values;
      const std::vector<float> found = pattern.GradValues(c);
      for (size_t j = 0; j < found.size(); ++j) {
        CHECK(std::isnan(found[j]) == std::isnan(expected[j]));
      }
    }
    twin->FreeAll();
  }
}

// direct: a NaN or infinity reaches the outputs that read it through a
// non-zero, and no others; ReLU keeps NaN.
inline void TestNonFinite(Twin* twin) {
  Random random(2);
  for (int i = 0; i < 100; ++i) {
    CudaCase c = RandomCudaCase(&random);
    if (c.input.empty()) continue;
    const float bad[] = {kNan, std::numeric_limits<float>::infinity()};
    c.input[random.Below(static_cast<int64_t>(c.input.size()))] =
        bad[random.Below(2)];
    SparseConvCudaOptions options = {};
    options.kernel = "direct";
    options.batch = c.batch;
    DevicePattern pattern(c, options, twin);
    pattern.SetValues(c.weights);
    for (bool relu : {false, true}) {
      const std::vector<float> expected =
          CpuConvolve(c, kSparseConvCudaForward, c.weights, c.input,
                      c.bias.data(), relu)
              .values;
      const std::vector<float> found =
          pattern.Convolve(c, c.input, 0, true, relu);
      for (size_t j = 0; j < found.size(); ++j) {
        CHECK(std::isfinite(found[j]) == std::isfinite(expected[j]));
        CHECK(std::isnan(found[j]) == std::isnan(expected[j]));
      }
    }
    twin->FreeAll();
  }
}

// An image's result does not depend on those beside it.
inline void TestBatches(Twin* twin) {
  Random random(3);
  for (const char* kernel : {"direct", "tf32", "bf16"}) {
    CudaCase c = RandomCudaCase(&random);
    while (c.batch < 3 || c.grad_output.empty() || c.positions.empty()) {
      c = RandomCudaCase(&random);
    }
    SparseConvCudaOptions options = {};
    options.kernel = kernel;
    options.batch = c.batch;
    DevicePattern pattern(c, options, twin);
    pattern.SetValues(c.weights);
    const std::vector<float> all = pattern.Convolve(c, c.input, 0, true, false);
    CudaCase one = c;
    one.batch = 1;
    one.input.resize(c.input.size() / c.batch);
    one.grad_output.resize(c.grad_output.size() / c.batch);
    for (int64_t n = 0; n < c.batch; ++n) {
      std::copy_n(c.input.begin() + n * one.input.size(), one.input.size(),
                  one.input.begin());
      const std::vector<float> found =
          pattern.Convolve(one, one.input, 0, true, false);
      CHECK(std::memcmp(found.data(), all.data() + n * found.size(),
                        found.size() * sizeof(float)) == 0);
    }
    twin->FreeAll();
  }
}

// What the model takes for a 3x3 layer of ResNet-50, for weights that are
// arranged so.
inline void TestChoices() {
  const SparseConvGeometry g = {14, 14, 128, 3, 3, 128, 1, 1,
                                1,  1,  1,   1, 1, 1,   1, kSparseConvNhwc};
  const auto plan = [&](auto&& is_weight) {
    std::vector<int32_t> positions;
    for (int32_t column = 0; column < 9 * 128; ++column) {
      for (int32_t o = 0; o < 128; ++o) {
        if (is_weight(column, o)) positions.push_back(column * 128 + o);
      }
    }
    SparseConvCudaPattern* pattern = nullptr;
    SparseConvError error;
    const SparseConvCudaOptions options = {
        kSparseConvCudaForward, nullptr, 32, 0, 0, 0};
    CHECK(sparse_conv_cuda_pattern_create_int32(
              &g, positions.data(), static_cast<int64_t>(positions.size()),
              &options, &pattern, &error) == kSparseConvOk);
    SparseConvCudaPlan plan;
    sparse_conv_cuda_pattern_plan(pattern, &plan);
    sparse_conv_cuda_pattern_free(pattern);
    return plan;
  };
  Random random(6);
  const SparseConvCudaPlan unstructured =
      plan([&](int32_t, int32_t) { return random.Below(50) == 0; });
  CHECK(std::string(unstructured.kernel) == "direct");
  CHECK(unstructured.useful == 1.0);
  const SparseConvCudaPlan columns =
      plan([](int32_t column, int32_t) { return column / 8 % 2 == 0; });
  CHECK(std::string(columns.kernel) == "tf32" && columns.tile_filters == 64);
  CHECK(columns.useful > 0.8);
  for (int block : {16, 32}) {
    const SparseConvCudaPlan blocks = plan([=](int32_t column, int32_t o) {
      return (column / block * 7919 + o / block * 104729) % 13 == 0;
    });
    CHECK(std::string(blocks.kernel) == "tf32");
    CHECK(blocks.tile_filters == block);
    CHECK(blocks.useful > 0.8);
  }
}

inline void TestErrors() {
  SparseConvGeometry g = {5, 5, 4, 3, 3, 8, 1, 1,
                          1, 1, 1, 1, 1, 1, 1, kSparseConvNhwc};
  const auto fails = [&](std::vector<int64_t> positions,
                         SparseConvCudaOptions options, const char* message) {
    SparseConvCudaPattern* pattern = nullptr;
    SparseConvError error;
    CHECK(sparse_conv_cuda_pattern_create_int64(
              &g, positions.data(), static_cast<int64_t>(positions.size()),
              &options, &pattern, &error) == kSparseConvInvalidArgument);
    CHECK(pattern == nullptr);
    if (std::strcmp(error.message, message) != 0) {
      std::printf("%s\n", error.message);
      CHECK(false);
    }
  };
  fails({}, {kSparseConvCudaForward, "fp8", 1, 0, 0, 0},
        "Invalid value for argument kernel. Expected 'direct', 'tf32' or "
        "'bf16', or none. Received: kernel='fp8'");
  fails({}, {static_cast<SparseConvCudaPurpose>(7), nullptr, 1, 0, 0, 0},
        "Invalid value for argument purpose. Expected kSparseConvCudaForward "
        "or kSparseConvCudaGradInput. Received: purpose=7");
  fails({}, {kSparseConvCudaForward, nullptr, 1, 48, 0, 0},
        "Invalid value for argument tile_filters. Expected 0, 16, 32 or 64. "
        "Received: tile_filters=48");
  fails({}, {kSparseConvCudaForward, nullptr, 1, 0, 100, 0},
        "Invalid value for argument pixels. Expected 0, 64, 128, 192 or 256. "
        "Received: pixels=100");
  fails({}, {kSparseConvCudaForward, nullptr, 1, 0, 0, 3},
        "Invalid value for argument columns. Expected 0, 1 or 2. Received: "
        "columns=3");
  fails({3, 3}, {kSparseConvCudaForward, nullptr, 1, 0, 0, 0},
        "Invalid value for argument positions. Expected ascending integers in "
        "[0, 288). Received: positions[1]=3 after 3");
  fails(std::vector<int64_t>(289),
        {kSparseConvCudaForward, nullptr, 1, 0, 0, 0},
        "Invalid value for argument num_nonzeros. Expected 0 to 288, the "
        "elements of the kernel. Received: num_nonzeros=289");
  g.dilation_height = 100000;
  g.height = 300000;
  fails({0, 287}, {kSparseConvCudaForward, nullptr, 1, 0, 0, 1},
        "Invalid value for argument options. Expected patches of at most 39936 "
        "bytes and less than 2^31 weights, zeros of tiles included. Received: "
        "more");
  g.height = int64_t{1} << 29;
  g.width = 1;
  g.in_channels = 1;
  g.pad_top = g.pad_bottom = g.pad_left = g.pad_right = 0;
  g.dilation_height = g.filter_height = g.filter_width = g.out_channels = 1;
  fails({}, {kSparseConvCudaForward, nullptr, 1, 0, 0, 0},
        "Invalid value for argument geometry. Expected less than 2^29 rows and "
        "columns with pads. Received: 2^29 or more");
  g.groups = 0;
  fails({}, {kSparseConvCudaForward, nullptr, 1, 0, 0, 0},
        "Invalid value for argument groups. Expected an integer in [1, 2^31). "
        "Received: groups=0");
}

inline void TestTwin(int64_t count, Twin* twin) {
  TestErrors();
  TestChoices();
  TestNonFinite(twin);
  TestBatches(twin);
  TestGradValues(count / 4, twin);
  TestRandomCases(count, twin);
}

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_TEST_H_
