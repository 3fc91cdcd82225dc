// Runs the kernels of the CUDA convolution as plain loops over blocks, steps
// and threads, with tensor cores emulated, and compares with the CPU's scalar
// kernel. Needs neither nvcc nor a GPU. Prints the first failure and exits
// with 1.

#include <cstdio>
#include <numeric>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_test.h"

namespace sparse_conv {
namespace cuda {
namespace {

// One multiplication of a tensor core as one lane issues it.
struct Product {
  KernelKind kind;
  uint32_t a[4];
  uint32_t b[2];
  float* sum;
};

// A value that one lane adds to a sum over its warp.
struct Sum {
  float value;
  float* target;
};

// What a thread's machine does at once, or when others wait for it: copies are
// done at once or, the latest possible, at the wait for them; products and
// sums, which need all lanes of a warp, at the end of a step.
class HostThread {
 public:
  explicit HostThread(bool copies_late) : copies_late_(copies_late) {}

  template <int bytes>
  void Copy(void* shared, const void* global, bool valid) {
    CHECK(reinterpret_cast<uintptr_t>(shared) % bytes == 0);
    CHECK(reinterpret_cast<uintptr_t>(global) % bytes == 0 || !valid);
    const auto copy = [=] {
      if (valid) {
        std::memcpy(shared, global, bytes);
      } else {
        std::memset(shared, 0, bytes);
      }
    };
    if (!copies_late_) return copy();
    // Until it is there, nobody may count on what was there before.
    std::memset(shared, 0xFF, bytes);
    copies_.push_back({shared, valid ? global : nullptr, bytes});
  }
  void Commit() { committed_ = copies_.size(); }
  void Wait() {
    CHECK(committed_ == copies_.size());
    for (const Pending& copy : copies_) {
      if (copy.global == nullptr) {
        std::memset(copy.shared, 0, copy.bytes);
      } else {
        std::memcpy(copy.shared, copy.global, copy.bytes);
      }
    }
    copies_.clear();
    committed_ = 0;
  }
  template <KernelKind kind>
  void Multiply(const uint32_t* a, const uint32_t* b, float* sum) {
    products.push_back({kind, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, sum});
  }

  void AddOfWarp(float value, float* target) {
    sums.push_back({value, target});
  }

  std::vector<Product> products;
  std::vector<Sum> sums;

 private:
  struct Pending {
    void* shared;
    const void* global;
    int bytes;
  };
  const bool copies_late_;
  std::vector<Pending> copies_;
  size_t committed_ = 0;
};

// The matrices that a warp's registers hold, by the tables of the PTX manual
// for mma.m16n8k8 (.tf32) and mma.m16n8k16 (.bf16).
void MultiplyOfWarp(const std::vector<HostThread*>& lanes, size_t index) {
  float a[16][16] = {};
  float b[16][8] = {};
  const KernelKind kind = lanes[0]->products[index].kind;
  for (int lane = 0; lane < kWarp; ++lane) {
    const Product& product = lanes[lane]->products[index];
    CHECK(product.kind == kind);
    const int group = lane >> 2;
    const int in_group = lane % 4;
    if (kind == kTf32) {
      for (int i = 0; i < 4; ++i) {
        const int row = i == 0 || i == 2 ? group : group + 8;
        const int column = i < 2 ? in_group : in_group + 4;
        a[row][column] = BitCast<float>(product.a[i] & ~0x1FFFu);
      }
      for (int i = 0; i < 2; ++i) {
        b[in_group + i * 4][group] = BitCast<float>(product.b[i] & ~0x1FFFu);
      }
      continue;
    }
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
      const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      a[row][column] =
          BitCast<float>((product.a[i / 2] >> (16 * (i % 2))) << 16);
    }
    for (int i = 0; i < 4; ++i) {
      b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] =
          BitCast<float>((product.b[i / 2] >> (16 * (i % 2))) << 16);
    }
  }
  const int depth = kind == kTf32 ? 8 : 16;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? lane >> 2 : (lane >> 2) + 8;
      const int column = lane % 4 * 2 + (i & 1);
      float& sum = lanes[lane]->products[index].sum[i];
      double exact = sum;
      for (int k = 0; k < depth; ++k) {
        exact += static_cast<double>(a[row][k]) * b[k][column];
      }
      sum = static_cast<float>(exact);
    }
  }
}

// Halves of the warp, then quarters, and so on.
void AddOfWarp(const std::vector<HostThread*>& lanes, size_t index) {
  float values[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    values[lane] = lanes[lane]->sums[index].value;
    CHECK(lanes[lane]->sums[index].target == lanes[0]->sums[index].target);
  }
  for (int count = kWarp / 2; count > 0; count /= 2) {
    for (int lane = 0; lane < count; ++lane) {
      values[lane] += values[lane + count];
    }
  }
  *lanes[0]->sums[index].target += values[0];
}

// Takes blocks, and threads between two barriers, in random order: a result
// that depends on it would show.
class HostDevice {
 public:
  template <typename Kernel>
  void Launch(const Kernel& kernel, int64_t blocks) {
    std::vector<int64_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    constexpr size_t kBytes = Kernel::kSharedBytes;
    const std::unique_ptr<char, void (*)(void*)> shared(
        static_cast<char*>(std::aligned_alloc(16, kBytes)), std::free);
    std::vector<typename Kernel::Registers> registers(Kernel::kThreads);
    for (int64_t block : order) {
      // As undefined as on a GPU: NaN.
      std::memset(shared.get(), 0xFF, kBytes);
      std::memset(static_cast<void*>(registers.data()), 0xFF,
                  registers.size() * sizeof(registers[0]));
      std::vector<HostThread> threads;
      for (int t = 0; t < Kernel::kThreads; ++t) {
        threads.emplace_back(random_() % 2 == 0);
      }
      ForThreads(&threads, [&](int t) {
        kernel.Begin(block, t, shared.get(), &registers[t], &threads[t]);
      });
      for (int step = 0; step < kernel.NumSteps(block); ++step) {
        ForThreads(&threads, [&](int t) {
          kernel.Step(step, block, t, shared.get(), &registers[t], &threads[t]);
        });
      }
      for (int i = 0; i < Kernel::kEnds; ++i) {
        ForThreads(&threads, [&](int t) {
          kernel.End(i, block, t, shared.get(), &registers[t], &threads[t]);
        });
      }
    }
  }

  template <typename Kernel>
  void LaunchThreads(const Kernel& kernel, int64_t blocks) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int t = 0; t < Kernel::kThreads; ++t) kernel.Run(block, t);
    }
  }

 private:
  template <typename Run>
  void ForThreads(std::vector<HostThread>* threads, const Run& run) {
    std::vector<int> order(threads->size());
    std::iota(order.begin(), order.end(), 0);
    std::rotate(order.begin(), order.begin() + random_() % order.size(),
                order.end());
    if (random_() % 2 == 0) std::reverse(order.begin(), order.end());
    for (int t : order) run(t);
    for (size_t warp = 0; warp < threads->size(); warp += kWarp) {
      std::vector<HostThread*> lanes;
      for (int lane = 0; lane < kWarp; ++lane) {
        lanes.push_back(&(*threads)[warp + lane]);
        CHECK(lanes[lane]->products.size() == lanes[0]->products.size());
        CHECK(lanes[lane]->sums.size() == lanes[0]->sums.size());
      }
      for (size_t i = 0; i < lanes[0]->products.size(); ++i) {
        MultiplyOfWarp(lanes, i);
      }
      for (size_t i = 0; i < lanes[0]->sums.size(); ++i) AddOfWarp(lanes, i);
      for (HostThread* lane : lanes) {
        lane->products.clear();
        lane->sums.clear();
      }
    }
  }

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
  void SetValues(const SparseConvCudaPattern* pattern, void* memory,
                 const void* values, SparseConvDtype dtype) override {
    cuda::SetValues(*pattern, static_cast<char*>(memory), values, dtype,
                    &device_);
  }
  void Convolve(const SparseConvCudaPattern* pattern, const void* memory,
                int64_t batch, const float* input, const float* bias,
                SparseConvActivation activation, float* output) override {
    cuda::Convolve(*pattern, static_cast<const char*>(memory), batch, input,
                   bias, activation == kSparseConvRelu, output, &device_);
  }
  void GradValues(const SparseConvCudaPattern* pattern, const void* memory,
                  int64_t batch, const float* input, const float* grad_output,
                  float* grad_values, float* grad_bias) override {
    cuda::GradValues(
        *pattern, static_cast<const char*>(memory), batch, input, grad_output,
        grad_values, grad_bias,
        static_cast<float*>(Allocate(PlanGradValues(*pattern, batch).workspace *
                                     sizeof(float))),
        &device_);
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
  HostDevice device_;
};

void TestRounding() {
  const auto tf32 = [](uint32_t bits) { return ToTf32(BitCast<float>(bits)); };
  CHECK(tf32(0x3F800FFFu) == 0x3F800000u);
  CHECK(tf32(0x3F801000u) == 0x3F802000u);  // a tie: away from zero
  CHECK(tf32(0xBF801000u) == 0xBF802000u);
  CHECK(tf32(0x3FFFFFFFu) == 0x40000000u);
  CHECK(tf32(0x7F800000u) == 0x7F800000u);
  CHECK(tf32(0x7FFFFFFFu) == 0x7FFFFFFFu);
  const auto bf16 = [](uint32_t bits) { return ToBf16(BitCast<float>(bits)); };
  CHECK(bf16(0x3F808000u) == 0x3F80u);  // a tie: to even
  CHECK(bf16(0x3F818000u) == 0x3F82u);
  CHECK(bf16(0x3F808001u) == 0x3F81u);
  CHECK(bf16(0xFF800000u) == 0xFF80u);
  CHECK(bf16(0x7F800001u) == 0x7FFFu);
  CHECK(ToBf16Pair(1.0f, -2.0f) == 0xC0003F80u);
}

}  // namespace
}  // namespace cuda
}  // namespace sparse_conv

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 1000;
  sparse_conv::cuda::TestRounding();
  sparse_conv::cuda::HostTwin twin;
  sparse_conv::cuda::TestTwin(count, &twin);
  std::printf("sparse_conv_cuda_host_test: all passed\n");
  return 0;
}
