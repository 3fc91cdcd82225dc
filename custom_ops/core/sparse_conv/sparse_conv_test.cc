// Tests of the C interface of sparse convolution: every kernel that runs here
// against results in double.
//
//   sparse_conv_test [random convolutions] [seed, default 1]
//
// It also starts itself with SPARSE_CONV_JIT=0 and with
// SPARSE_CONV_ISA=scalar: no executable memory, no instruction set.

#include "custom_ops/core/sparse_conv/sparse_conv_test.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

namespace sparse_conv {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SparseConvPattern* PatternOf(const Case& c, const char* kernel,
                             const SparseConvPool* pool) {
  SparseConvPattern* pattern = nullptr;
  SparseConvError error;
  const SparseConvOptions options = {kernel};
  const SparseConvCode code = sparse_conv_pattern_create_int64(
      &c.geometry, c.positions.data(), static_cast<int64_t>(c.positions.size()),
      &options, pool, &pattern, &error);
  if (code != kSparseConvOk) std::printf("%s\n", error.message);
  CHECK(code == kSparseConvOk);
  return pattern;
}

SparseConvValues* ValuesOf(const Case& c, SparseConvPattern* pattern) {
  SparseConvValues* values = nullptr;
  SparseConvError error;
  CHECK(sparse_conv_values_create(pattern, c.weights.data(), kSparseConvFloat32,
                                  nullptr, &values, &error) == kSparseConvOk);
  return values;
}

// |actual - expected| <= 4e-6 * sum of magnitudes + 1e-6; NaN equals nothing.
void CheckClose(const char* what, const Case& c, const char* kernel,
                const std::vector<double>& expected,
                const std::vector<double>& magnitude, Guarded* actual) {
  CHECK(static_cast<int64_t>(expected.size()) == actual->size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs((*actual)[i] - expected[i]);
    if (!(difference <= 4e-6 * magnitude[i] + 1e-6)) {
      std::printf("%s, kernel %s: %s\n[%zu] is %.9g, expected %.9g\n", what,
                  kernel, c.Name().c_str(), i, (*actual)[i], expected[i]);
      std::exit(1);
    }
  }
}

// Results of one kernel, computed over NaN.
struct Results {
  Guarded output;
  Guarded grad_input;
  Guarded grad_values;
  Guarded grad_bias;

  Results(const Case& c, const char* kernel, bool bias, bool relu,
          const SparseConvPool* pool)
      : output(c.output_size(), kNan),
        grad_input(static_cast<int64_t>(c.input.size()), kNan),
        grad_values(static_cast<int64_t>(c.positions.size()), kNan),
        grad_bias(c.geometry.out_channels, kNan) {
    SparseConvPattern* pattern = PatternOf(c, kernel, pool);
    SparseConvValues* values = ValuesOf(c, pattern);
    SparseConvError error;
    CHECK(sparse_conv_forward(
              values, c.batch, c.input.data(), bias ? c.bias.data() : nullptr,
              relu ? kSparseConvRelu : kSparseConvNone, output.data(), pool,
              nullptr, &error) == kSparseConvOk);
    CHECK(sparse_conv_grad_input(values, c.batch, c.grad_output.data(),
                                 grad_input.data(), pool, nullptr,
                                 &error) == kSparseConvOk);
    CHECK(sparse_conv_grad_values(pattern, c.batch, c.input.data(),
                                  c.grad_output.data(), grad_values.data(),
                                  grad_bias.data(), pool, nullptr,
                                  &error) == kSparseConvOk);
    sparse_conv_values_release(values);
    sparse_conv_pattern_release(pattern);
  }

  bool SameBits(Results* other) {
    const auto same = [](Guarded* a, Guarded* b) {
      return a->size() == b->size() &&
             std::memcmp(a->data(), b->data(), a->size() * sizeof(float)) == 0;
    };
    return same(&output, &other->output) &&
           same(&grad_input, &other->grad_input) &&
           same(&grad_values, &other->grad_values) &&
           same(&grad_bias, &other->grad_bias);
  }
};

void TestRandom(int64_t count, uint64_t seed) {
  Random random(seed);
  for (int64_t i = 0; i < count; ++i) {
    const Case c = RandomCase(&random);
    const bool bias = random.Below(2) == 0;
    const bool relu = random.Below(2) == 0;
    Reference expected = ReferenceOf(c);
    for (size_t k = 0; k < expected.output.size(); ++k) {
      double& sum = expected.output[k];
      if (!bias) {
        const int64_t o =
            c.geometry.format == kSparseConvNhwc
                ? k % c.geometry.out_channels
                : k / (c.out_height * c.out_width) % c.geometry.out_channels;
        sum -= c.bias[o];
      }
      if (relu) sum = std::max(0.0, sum);
    }
    for (int k = 0; const char* kernel = sparse_conv_kernel_name(k); ++k) {
      TestPool one = {1, 1 << 30};
      TestPool many = {static_cast<int>(random.Between(2, 3)),
                       random.Between(1, 5)};
      const SparseConvPool pool_one = one.Pool();
      const SparseConvPool pool_many = many.Pool();
      Results results(c, kernel, bias, relu, &pool_one);
      CheckClose("output", c, kernel, expected.output,
                 expected.output_magnitude, &results.output);
      CheckClose("grad_input", c, kernel, expected.grad_input,
                 expected.grad_input_magnitude, &results.grad_input);
      CheckClose("grad_values", c, kernel, expected.grad_values,
                 expected.grad_values_magnitude, &results.grad_values);
      const std::vector<double> ones(c.geometry.out_channels, 100);
      CheckClose("grad_bias", c, kernel, expected.grad_bias, ones,
                 &results.grad_bias);
      if (i % 4 == 0) {
        Results threaded(c, kernel, bias, relu, &pool_many);
        CHECK(results.SameBits(&threaded));
      }
    }
  }
}

// Whether values are finite where they are expected to be and nowhere else; or
// only that, where not, none is.
void CheckFinite(const std::vector<double>& expected, bool exactly,
                 Guarded* actual) {
  for (int64_t i = 0; i < actual->size(); ++i) {
    if (exactly || !std::isfinite(expected[i])) {
      CHECK(std::isfinite((*actual)[i]) == std::isfinite(expected[i]));
    }
  }
}

// A NaN or infinity in the input reaches the outputs that read it through a
// non-zero, and no others. A NaN weight reaches what it multiplies, which may
// be zeros around the image.
void TestNonFinite() {
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    Case c = RandomCase(&random);
    if (c.input.empty() || c.positions.empty()) continue;
    const bool bad_weight = random.Below(3) == 0;
    const float bad[] = {kNan, std::numeric_limits<float>::infinity()};
    std::vector<float>& values = bad_weight ? c.weights : c.input;
    values[random.Below(values.size())] = bad[random.Below(2)];
    const Reference expected = ReferenceOf(c);
    for (int k = 0; const char* kernel = sparse_conv_kernel_name(k); ++k) {
      Results results(c, kernel, true, false, nullptr);
      CheckFinite(expected.output, !bad_weight, &results.output);
      CheckFinite(expected.grad_input, !bad_weight, &results.grad_input);
      CheckFinite(expected.grad_values, true, &results.grad_values);
      // ReLU lets NaN through.
      Results relu(c, kernel, true, true, nullptr);
      for (int64_t j = 0; j < relu.output.size(); ++j) {
        if (std::isnan(expected.output[j])) CHECK(std::isnan(relu.output[j]));
      }
    }
  }
}

// Four threads prepare and run one pattern at a time.
void TestSharedPattern() {
  Random random(7);
  for (int i = 0; i < 20; ++i) {
    const Case c = RandomCase(&random);
    for (int k = 0; const char* kernel = sparse_conv_kernel_name(k); ++k) {
      Results alone(c, kernel, true, false, nullptr);
      SparseConvPattern* pattern = PatternOf(c, kernel, nullptr);
      SparseConvValues* values = ValuesOf(c, pattern);
      std::atomic<int> wrong{0};
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
          sparse_conv_values_retain(values);
          Guarded output(c.output_size(), kNan);
          SparseConvError error;
          const SparseConvCode code = sparse_conv_forward(
              values, c.batch, c.input.data(), c.bias.data(), kSparseConvNone,
              output.data(), nullptr, nullptr, &error);
          if (code != kSparseConvOk ||
              std::memcmp(output.data(), alone.output.data(),
                          output.size() * sizeof(float)) != 0) {
            ++wrong;
          }
          sparse_conv_values_release(values);
        });
      }
      for (std::thread& thread : threads) thread.join();
      CHECK(wrong == 0);
      sparse_conv_values_release(values);
      sparse_conv_pattern_release(pattern);
    }
  }
}

void TestBfloat16() {
  Random random(9);
  Case c = RandomCase(&random);
  std::vector<uint16_t> halves;
  for (float& weight : c.weights) {
    uint32_t bits;
    std::memcpy(&bits, &weight, sizeof(bits));
    halves.push_back(static_cast<uint16_t>(bits >> 16));
    bits &= 0xffff0000u;
    std::memcpy(&weight, &bits, sizeof(bits));
  }
  Results expected(c, nullptr, true, false, nullptr);
  SparseConvPattern* pattern = PatternOf(c, nullptr, nullptr);
  SparseConvValues* values = nullptr;
  SparseConvError error;
  CHECK(sparse_conv_values_create(pattern, halves.data(), kSparseConvBfloat16,
                                  nullptr, &values, &error) == kSparseConvOk);
  Guarded output(c.output_size(), kNan);
  CHECK(sparse_conv_forward(values, c.batch, c.input.data(), c.bias.data(),
                            kSparseConvNone, output.data(), nullptr, nullptr,
                            &error) == kSparseConvOk);
  CHECK(std::memcmp(output.data(), expected.output.data(),
                    output.size() * sizeof(float)) == 0);
  sparse_conv_values_release(values);
  sparse_conv_pattern_release(pattern);
}

constexpr SparseConvGeometry kSmall = {5, 5, 2, 3, 3, 4, 1, 1,
                                       1, 1, 1, 1, 1, 1, 1, kSparseConvNhwc};

void CheckRefused(const SparseConvGeometry& geometry,
                  const std::vector<int64_t>& positions, const char* kernel,
                  const char* message) {
  SparseConvPattern* pattern = nullptr;
  SparseConvError error;
  const SparseConvOptions options = {kernel};
  CHECK(sparse_conv_pattern_create_int64(
            &geometry, positions.data(), static_cast<int64_t>(positions.size()),
            &options, nullptr, &pattern, &error) == kSparseConvInvalidArgument);
  if (std::strcmp(error.message, message) != 0) {
    std::printf("got:      %s\nexpected: %s\n", error.message, message);
    std::exit(1);
  }
}

// The switches of the environment do what they say.
void TestSwitches() {
  const char* jit = std::getenv("SPARSE_CONV_JIT");
  const char* isa = std::getenv("SPARSE_CONV_ISA");
  if (jit != nullptr && std::strcmp(jit, "0") == 0) {
    CHECK(sparse_conv_executable_memory() == 0);
    for (int k = 0; const char* kernel = sparse_conv_kernel_name(k); ++k) {
      CHECK(std::strstr(kernel, "jit") == nullptr);
    }
  }
  if (isa != nullptr && std::strcmp(isa, "scalar") == 0) {
    CHECK(std::strcmp(sparse_conv_isa(), "scalar") == 0);
    CHECK(std::strncmp(sparse_conv_kernel_name(0), "avx", 3) != 0);
  }
}

void TestErrors() {
  CheckRefused(kSmall, {3, 3}, nullptr,
               "Invalid value for argument positions. Expected ascending "
               "integers in [0, 72). Received: positions[1]=3 after 3");
  CheckRefused(kSmall, {72}, nullptr,
               "Invalid value for argument positions. Expected ascending "
               "integers in [0, 72). Received: positions[0]=72 after -1");
  CheckRefused(kSmall, {-2}, nullptr,
               "Invalid value for argument positions. Expected ascending "
               "integers in [0, 72). Received: positions[0]=-2 after -1");
  CheckRefused(kSmall, std::vector<int64_t>(73), nullptr,
               "Invalid value for argument num_nonzeros. Expected 0 to 72, the "
               "elements of the kernel. Received: num_nonzeros=73");
  CheckRefused(kSmall, {}, "fast",
               "Invalid value for argument kernel. Expected the name of a "
               "kernel that runs here. Received: kernel='fast'");
  SparseConvGeometry g = kSmall;
  g.groups = 3;
  CheckRefused(g, {}, nullptr,
               "Invalid value for argument groups. Expected a divisor of "
               "in_channels=2 and out_channels=4. Received: groups=3");
  g = kSmall;
  g.stride_width = 0;
  CheckRefused(
      g, {}, nullptr,
      "Invalid value for argument stride_width. Expected an integer in "
      "[1, 2^31). Received: stride_width=0");
  g = kSmall;
  g.out_channels = 1 << 30;
  CheckRefused(g, {}, nullptr,
               "Invalid value for argument geometry. Expected less than 2^31 "
               "elements in the kernel. Received: 2^31 or more");
  g = kSmall;
  g.height = g.width = 1 << 20;
  CheckRefused(g, {}, nullptr,
               "Invalid value for argument geometry. Expected less than 2^31 "
               "elements in the padded input. Received: 2^31 or more");
  g = kSmall;
  g.format = static_cast<SparseConvFormat>(7);
  CheckRefused(g, {}, nullptr,
               "Invalid value for argument format. Expected kSparseConvNhwc or "
               "kSparseConvNchw. Received: format=7");
}

// No memory: said, not crashed.
void TestOutOfMemory() {
  Random random(3);
  Case c = RandomCase(&random);
  while (c.output_size() == 0 || c.positions.empty()) c = RandomCase(&random);
  SparseConvAllocator none = {[](void*, size_t) -> void* { return nullptr; },
                              nullptr, nullptr};
  SparseConvPattern* pattern = PatternOf(c, nullptr, nullptr);
  Guarded grad_values(static_cast<int64_t>(c.positions.size()), kNan);
  SparseConvError error;
  const SparseConvCode code = sparse_conv_grad_values(
      pattern, c.batch, c.input.data(), c.grad_output.data(),
      grad_values.data(), nullptr, nullptr, &none, &error);
  CHECK(code == (std::strcmp(sparse_conv_kernel_name(0), "scalar") == 0
                     ? kSparseConvOk
                     : kSparseConvOutOfMemory));
  sparse_conv_pattern_release(pattern);
}

}  // namespace
}  // namespace sparse_conv

int main(int argc, char** argv) {
#if defined(__SANITIZE_ADDRESS__)
  constexpr int64_t kCases = 400;  // each takes ten times as long
#else
  constexpr int64_t kCases = 2000;
#endif
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : kCases;
  const uint64_t seed = argc > 2 ? std::atoll(argv[2]) : 1;
  sparse_conv::AddEmulatedKernels();
  sparse_conv::TestSwitches();
  sparse_conv::TestErrors();
  sparse_conv::TestOutOfMemory();
  sparse_conv::TestBfloat16();
  sparse_conv::TestNonFinite();
  sparse_conv::TestSharedPattern();
  sparse_conv::TestRandom(count, seed);
  std::printf("isa %s, executable memory %d: all passed\n", sparse_conv_isa(),
              sparse_conv_executable_memory());
  if (std::getenv("SPARSE_CONV_TEST_CHILD") != nullptr) return 0;
  std::fflush(stdout);
  setenv("SPARSE_CONV_TEST_CHILD", "1", 1);
  for (const char* setting : {"SPARSE_CONV_JIT=0", "SPARSE_CONV_ISA=scalar"}) {
    const std::string command =
        std::string(setting) + " " + argv[0] + " " + std::to_string(count / 10);
    CHECK(std::system(command.c_str()) == 0);
  }
  return 0;
}
