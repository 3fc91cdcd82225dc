// Runs the kernels of the CUDA codec as plain loops over blocks, phases and
// threads, and compares with the CPU codec bit by bit. Needs neither nvcc nor a
// GPU. Prints the first failure and exits with 1.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>

#include "custom_ops/core/ternary/philox.h"
#include "custom_ops/core/ternary/ternary_cuda_launch_inl.h"
#include "custom_ops/core/ternary/ternary_cuda_test.h"

namespace ternary {
namespace cuda {
namespace {

// Takes blocks, and the threads of each phase, in random order: a result that
// depends on it would show.
class HostDevice {
 public:
  template <typename Kernel>
  void Launch(const Kernel& kernel, int64_t blocks) {
    std::vector<int64_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    std::vector<int> threads(Kernel::kThreads);
    std::iota(threads.begin(), threads.end(), 0);
    const auto shared = std::make_unique<typename Kernel::Shared>();
    for (int64_t block : order) {
      // As undefined as on a GPU.
      std::memset(static_cast<void*>(shared.get()), 0xAB, sizeof(*shared));
      for (int phase = 0; phase < kernel.Phases(block); ++phase) {
        std::rotate(threads.begin(),
                    threads.begin() + random_() % threads.size(),
                    threads.end());
        if (random_() % 2) std::reverse(threads.begin(), threads.end());
        for (int thread : threads) {
          kernel.Run(phase, block, thread, shared.get());
        }
      }
    }
  }

  void Zero(void* memory, int64_t bytes) { std::memset(memory, 0, bytes); }

 private:
  std::mt19937 random_{1};
};

class HostTwin : public Twin {
 public:
  void* Allocate(size_t bytes) override {
    constexpr size_t kAlignment = 256;
    const size_t size = (bytes / kAlignment + 1) * kAlignment;
    memory_.emplace_back(std::aligned_alloc(kAlignment, size), std::free);
    std::memset(memory_.back().get(), 0xCD, size);
    return memory_.back().get();
  }
  void FreeAll() override { memory_.clear(); }
  void Upload(const void* host, size_t bytes, void* device) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void Download(const void* device, size_t bytes, void* host) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }

  void Scalers(const TernaryTensor* tensors, int num_tensors,
               double clip_factor, int64_t bucket_size,
               TernaryDtype scaler_dtype, void* scalers) override {
    void* workspace = Allocate(
        SplitScalersWorkspace(tensors, num_tensors, bucket_size, nullptr)
            .bytes);
    cuda::Scalers(tensors, num_tensors, clip_factor, bucket_size, scaler_dtype,
                  scalers, workspace, &device_);
  }
  void Encode(const TernaryTensor* tensors, int num_tensors,
              const TernaryEncodeOptions& options, TernaryDtype scaler_dtype,
              const void* clip_levels, const void* scalers, void* payload,
              int64_t* counts) override {
    cuda::Encode(tensors, num_tensors, options, scaler_dtype, clip_levels,
                 scalers, payload, counts,
                 Allocate(num_tensors * sizeof(Record)), &device_);
  }
  void SumTrits(const uint8_t* parts, int64_t groups, int64_t num_workers,
                int64_t* words) override {
    cuda::SumTrits(parts, groups, num_workers, words, &device_);
  }
  void Decode(const void* payload, TernaryLayout layout,
              const TernaryTensor* tensors, int num_tensors,
              int64_t bucket_size, int64_t num_workers,
              TernaryDtype scaler_dtype, const void* scalers,
              int64_t* guard) override {
    cuda::Decode(payload, layout, tensors, num_tensors, bucket_size,
                 num_workers, scaler_dtype, scalers, guard,
                 Allocate(num_tensors * sizeof(Record)), &device_);
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
  HostDevice device_;
};

void TestPhilox() {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const Stream stream = {random(), random() >> 24,
                           static_cast<uint32_t>(random() >> 40),
                           static_cast<uint32_t>(random() >> 40)};
    const uint64_t index = random() >> (24 + random() % 40);
    const Philox4 expected = Philox(Counter(stream, index), stream.seed);
    const Random128 found = PhiloxAt(stream, index, stream.seed);
    for (int w = 0; w < 4; ++w) CHECK(found.word[w] == expected[w]);
    for (int b = 0; b < 16; ++b) {
      CHECK(RandomByte(found, b) ==
            ((expected[b / 4] >> (8 * (b % 4))) & 0xFFu));
    }
  }
}

void TestHalf() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    CHECK(FloatBits(WidenFloat16(half)) == FloatBits(FromFloat16(half)));
    CHECK(FloatBits(WidenBfloat16(half)) == FloatBits(FromBfloat16(half)));
  }
  std::mt19937_64 random(2);
  for (int i = 0; i < 2000000; ++i) {
    // Few bits, so that halves between two values occur, and all exponents.
    const uint64_t mask = ~uint64_t{0} << (random() % 52);
    double value = std::ldexp(
        1.0 + static_cast<double>((random() & mask) >> 12) * 0x1p-52,
        static_cast<int>(random() % (i % 2 ? 320 : 50)) - (i % 2 ? 170 : 30));
    if (random() % 2) value = -value;
    CHECK(NarrowToFloat16(value) == ToFloat16(value));
    CHECK(NarrowToBfloat16(value) == ToBfloat16(value));
  }
  for (double value : {0.0, -0.0, HUGE_VAL, -HUGE_VAL}) {
    CHECK(NarrowToFloat16(value) == ToFloat16(value));
    CHECK(NarrowToBfloat16(value) == ToBfloat16(value));
  }
}

void TestDividers() {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    const uint32_t small = static_cast<uint32_t>(random() >> (32 + i % 32)) | 1;
    const uint64_t large = (random() >> (i % 64)) | 1;
    const Divider32 by_small = MakeDivider<Divider32>(small);
    const Divider64 by_large = MakeDivider<Divider64>(large);
    for (int j = 0; j < 1000; ++j) {
      const uint64_t x = j == 0 ? ~uint64_t{0} : random() >> (j % 64);
      const uint32_t y = static_cast<uint32_t>(x);
      CHECK(by_small.Divide(y) == y / small);
      CHECK(by_large.Divide(x) == x / large);
    }
  }
  for (uint32_t digits = 1; digits <= 64; ++digits) {  // also powers of two
    const Divider32 divider = MakeDivider<Divider32>(digits);
    for (uint32_t x = 0; x < 10000; ++x) CHECK(divider.Divide(x) == x / digits);
  }
}

// What the quick test decides, the byte alone decides exactly: no draw of the
// other bits could change it.
void TestVerdicts() {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> uniform(0.0f, 1.01f);
  int64_t num_open = 0;
  constexpr int kTrials = 4000000;
  for (int i = 0; i < kTrials; ++i) {
    const float scaler = std::ldexp(1.0f + uniform(random) * 0.98f,
                                    static_cast<int>(random() % 227) - 100);
    const uint32_t byte = random() & 0xFF;
    float magnitude = scaler * uniform(random);
    if (i % 4 != 0) {  // at an edge
      magnitude = static_cast<float>((byte + i % 2) *
                                     static_cast<double>(scaler) / 256.0);
      uint32_t bits = BitCast<uint32_t>(magnitude);
      if (bits > 2) bits += static_cast<uint32_t>(random() % 5) - 2u;
      magnitude = BitCast<float>(bits);
    }
    const double rest = magnitude * 256.0 - byte * static_cast<double>(scaler);
    const Verdict verdict = Judge(magnitude, 256.0f / scaler, byte);
    if (verdict == kRests) CHECK(rest <= 0.0);
    if (verdict == kFires) CHECK(rest >= scaler);
    num_open += i % 4 == 0 && verdict == kOpen;
  }
  CHECK(num_open < kTrials / 4 / 200);  // or it would be slow
}

}  // namespace
}  // namespace cuda
}  // namespace ternary

int main() {
  ternary::cuda::TestPhilox();
  ternary::cuda::TestHalf();
  ternary::cuda::TestDividers();
  ternary::cuda::TestVerdicts();
  ternary::cuda::HostTwin twin;
  ternary::cuda::TestTwin(300, &twin);
  std::printf("ternary_cuda_host_test: all passed (against %s)\n",
              ternary_isa());
  return 0;
}
