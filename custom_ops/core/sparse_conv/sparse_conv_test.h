// What the files of sparse_conv_test share.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_TEST_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_TEST_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv.h"

// Prints the first failure and exits with 1.
#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                       \
    }                                                                     \
  } while (false)

namespace sparse_conv {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Below(int64_t n) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n));
  }
  int64_t Between(int64_t a, int64_t b) { return a + Below(b - a + 1); }
  float Normal() { return normal_(engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// An array at odd addresses whose neighbours are watched.
class Guarded {
 public:
  Guarded(int64_t size, float value) : size_(size) {
    memory_.assign(size + 2 * kGuard + 1, kMark);
    std::fill_n(data(), size, value);
  }
  ~Guarded() {
    for (int64_t i = 0; i < kGuard; ++i) {
      CHECK(memory_[1 + i] == kMark);
      CHECK(memory_[1 + kGuard + size_ + i] == kMark);
    }
  }
  float* data() { return memory_.data() + 1 + kGuard; }
  float& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return size_; }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr float kMark = 1234.5f;
  int64_t size_;
  std::vector<float> memory_;
};

// Threads that take items in pieces of `grain`.
struct TestPool {
  int threads;
  int64_t grain;

  SparseConvPool Pool() { return {Run, this, threads}; }
  static void Run(void* pool, int64_t items, int64_t cost,
                  void (*body)(void*, int64_t, int64_t), void* context);
};

// A convolution of random sizes with values.
struct Case {
  SparseConvGeometry geometry;
  int64_t batch;
  int64_t out_height;
  int64_t out_width;
  std::vector<int64_t> positions;
  std::vector<float> weights;
  std::vector<float> input;
  std::vector<float> bias;
  std::vector<float> grad_output;

  int64_t output_size() const {
    return batch * out_height * out_width * geometry.out_channels;
  }
  std::string Name() const;
};

Case RandomCase(Random* random);

// Results in double, and the sums of magnitudes that errors are measured by.
struct Reference {
  std::vector<double> output;
  std::vector<double> output_magnitude;
  std::vector<double> grad_input;
  std::vector<double> grad_input_magnitude;
  std::vector<double> grad_values;
  std::vector<double> grad_values_magnitude;
  std::vector<double> grad_bias;
};

Reference ReferenceOf(const Case& c);

// Adds the AVX-512 kernels by emulation to the names of kernels.
void AddEmulatedKernels();

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_TEST_H_
