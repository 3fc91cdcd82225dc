// Time of sparse convolution against the multiply-adds that two registers full
// of numbers allow, in the same run.
//
//   sparse_conv_benchmark [part of names, default all] [threads, default 2]
//       [rounds, default 7] [kernel, default the fastest]
//
// effective: of a dense convolution's work; real: of the non-zeros' work; peak:
// share of the peak that real is. A dense convolution at a share e of the peak
// takes (share / (density * e)) times as long.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "custom_ops/core/sparse_conv/kernels.h"
#include "custom_ops/core/sparse_conv/multiply_add_peak.h"
#include "custom_ops/core/sparse_conv/sparse_conv.h"

namespace {

// Threads that stay and take items one by one.
class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int t = 1; t < threads; ++t) others_.emplace_back([this] { Serve(); });
  }
  ~Pool() {
    stop_ = true;
    ++round_;
    for (std::thread& thread : others_) thread.join();
  }
  SparseConvPool pool() { return {Run, this, threads_}; }

 private:
  static void Run(void* pool, int64_t items, int64_t /*cost*/,
                  void (*body)(void*, int64_t, int64_t), void* context) {
    Pool& self = *static_cast<Pool*>(pool);
    self.items_ = items;
    self.body_ = body;
    self.context_ = context;
    self.next_ = 0;
    self.working_ = self.threads_ - 1;
    ++self.round_;
    self.Work();
    while (self.working_.load() != 0) Wait();
  }
  void Work() {
    for (int64_t i = next_++; i < items_; i = next_++)
      body_(context_, i, i + 1);
  }
  // Yielding would cost a time slice where others want the processor.
  static void Wait() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }
  void Serve() {
    for (int seen = 0;;) {
      while (round_.load() == seen) Wait();
      seen = round_;
      if (stop_) return;
      Work();
      --working_;
    }
  }

  const int threads_;
  std::vector<std::thread> others_;
  std::atomic<int> round_{0};
  std::atomic<int> working_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};
  int64_t items_ = 0;
  void (*body_)(void*, int64_t, int64_t) = nullptr;
  void* context_ = nullptr;
};

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double MedianMs(int rounds, const std::function<void()>& run) {
  run();
  std::vector<double> ms;
  for (int i = 0; i < rounds; ++i) {
    const double start = Now();
    run();
    ms.push_back(1e3 * (Now() - start));
  }
  std::sort(ms.begin(), ms.end());
  return ms[std::getenv("MIN") ? 0 : ms.size() / 2];
}

// GFLOP/s of multiply-adds between registers, on all threads at a time.
double PeakGflops(const SparseConvPool& pool) {
  constexpr int64_t kTurns = 2000000;
  const sparse_conv::Kernels* kernels = sparse_conv::ActiveKernels();
  if (kernels == nullptr) return 0;
  int lanes = kernels->lanes;
  const double ms = MedianMs(5, [&] {
    pool.run(
        pool.pool, pool.num_threads, 0,
        [](void* lanes, int64_t, int64_t) {
          sparse_conv::SpinMultiplyAdds(*static_cast<int*>(lanes), kTurns);
        },
        &lanes);
  });
  return 1e-6 * kTurns * sparse_conv::kSpinChains * 2 * lanes *
         pool.num_threads / ms;
}

enum Pattern { kRandom, kColumns, kBlocks16x1, kBlocks8x8 };

struct Shape {
  const char* name;
  int64_t size;
  int64_t in_channels;
  int64_t out_channels;
  int64_t filter;
  int64_t stride;
  int64_t groups;
  std::vector<double> sparsities;
  Pattern pattern;
};

const std::vector<Shape>& Shapes() {
  static const std::vector<Shape> kShapes = {
      {"alexnet_conv2", 27, 96, 256, 5, 1, 2, {.35, .85}, kRandom},
      {"alexnet_conv3",
       13,
       256,
       384,
       3,
       1,
       1,
       {0, .35, .8, .9, .95, .99},
       kRandom},
      {"alexnet_conv4", 13, 384, 384, 3, 1, 2, {.8, .9, .95}, kRandom},
      {"alexnet_conv5", 13, 384, 256, 3, 1, 2, {.8, .9, .95}, kRandom},
      {"resnet_3x3_56", 56, 64, 64, 3, 1, 1, {.9}, kRandom},
      {"resnet_3x3_28", 28, 128, 128, 3, 1, 1, {.35, .9}, kRandom},
      {"resnet_3x3_14", 14, 256, 256, 3, 1, 1, {.9}, kRandom},
      {"resnet_3x3_7", 7, 512, 512, 3, 1, 1, {.9}, kRandom},
      {"resnet_3x3_s2", 56, 128, 128, 3, 2, 1, {.9}, kRandom},
      {"resnet_1x1_56", 56, 64, 256, 1, 1, 1, {.35, .8, .9, .95}, kRandom},
      {"resnet_1x1_28", 28, 512, 128, 1, 1, 1, {.8, .9, .95}, kRandom},
      {"resnet_1x1_14", 14, 1024, 256, 1, 1, 1, {.8, .9, .95}, kRandom},
      {"resnet_1x1_14x", 14, 256, 1024, 1, 1, 1, {.35, .8, .9, .95}, kRandom},
      {"resnet_1x1_s2", 56, 256, 512, 1, 2, 1, {.9}, kRandom},
      {"columns_conv3", 13, 256, 384, 3, 1, 1, {.5, .75}, kColumns},
      {"columns_28", 28, 128, 128, 3, 1, 1, {.5, .75}, kColumns},
      {"blocks16x1_conv3", 13, 256, 384, 3, 1, 1, {.9}, kBlocks16x1},
      {"blocks8x8_conv3", 13, 256, 384, 3, 1, 1, {.9}, kBlocks8x8},
      {"blocks8x8_1x1", 28, 512, 128, 1, 1, 1, {.9}, kBlocks8x8},
      {"sparseprop", 32, 128, 128, 3, 1, 1, {.8, .9, .95}, kRandom},
  };
  return kShapes;
}

void Run(const Shape& shape, double sparsity, int64_t batch, int rounds,
         const char* kernel, double peak, const SparseConvPool& pool) {
  const int64_t pad = shape.filter / 2;
  const int64_t total =
      shape.stride == 1 ? 2 * pad : std::max<int64_t>(0, shape.filter - 2);
  SparseConvGeometry g = {};
  g.height = g.width = shape.size;
  g.in_channels = shape.in_channels;
  g.out_channels = shape.out_channels;
  g.filter_height = g.filter_width = shape.filter;
  g.stride_height = g.stride_width = shape.stride;
  g.dilation_height = g.dilation_width = 1;
  g.pad_top = g.pad_left = total / 2;
  g.pad_bottom = g.pad_right = total - total / 2;
  g.groups = shape.groups;
  SparseConvError error;
  int64_t height;
  int64_t width;
  sparse_conv_output_size(&g, &height, &width, &error);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<double> uniform;

  const int64_t channels = g.in_channels / g.groups;
  const int64_t columns = g.filter_height * g.filter_width * channels;
  std::vector<int32_t> positions;
  std::vector<float> weights;
  // One decision for all of a block.
  const int64_t block_rows = shape.pattern == kRandom      ? 1
                             : shape.pattern == kColumns   ? g.out_channels
                             : shape.pattern == kBlocks8x8 ? 8
                                                           : 16;
  const int64_t block_columns = shape.pattern == kBlocks8x8 ? 8 : 1;
  std::vector<bool> live((columns / block_columns + 1) *
                         (g.out_channels / block_rows + 1));
  for (size_t i = 0; i < live.size(); ++i)
    live[i] = uniform(random) >= sparsity;
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      if (live[c / block_columns * (g.out_channels / block_rows) +
               o / block_rows]) {
        positions.push_back(static_cast<int32_t>(c * g.out_channels + o));
        weights.push_back(normal(random));
      }
    }
  }
  std::vector<float> input(batch * g.height * g.width * g.in_channels);
  std::vector<float> output(batch * height * width * g.out_channels);
  for (float& value : input) value = normal(random);

  const SparseConvOptions options = {kernel};
  SparseConvPattern* pattern;
  SparseConvValues* values;
  const double start = Now();
  if (sparse_conv_pattern_create_int32(
          &g, positions.data(), static_cast<int64_t>(positions.size()),
          &options, &pool, &pattern, &error) != kSparseConvOk) {
    std::printf("%s\n", error.message);
    std::exit(1);
  }
  const auto forward = [&] {
    sparse_conv_forward(values, batch, input.data(), nullptr, kSparseConvNone,
                        output.data(), &pool, nullptr, &error);
  };
  sparse_conv_values_create(pattern, weights.data(), kSparseConvFloat32, &pool,
                            &values, &error);
  forward();
  const double prepare_and_run = 1e3 * (Now() - start);
  const double ms = MedianMs(rounds, forward);
  // New values in the same pattern.
  const double renewed = MedianMs(5, [&] {
    sparse_conv_values_release(values);
    sparse_conv_values_create(pattern, weights.data(), kSparseConvFloat32,
                              &pool, &values, &error);
  });
  std::vector<float> grad_values(positions.size());
  const bool grads = std::getenv("GRADS") != nullptr;
  const double grad_input_ms = !grads ? 0 : MedianMs(rounds / 2, [&] {
    sparse_conv_grad_input(values, batch, output.data(), input.data(), &pool,
                           nullptr, &error);
  });
  const double grad_values_ms = !grads ? 0 : MedianMs(rounds / 2, [&] {
    sparse_conv_grad_values(pattern, batch, input.data(), output.data(),
                            grad_values.data(), nullptr, &pool, nullptr,
                            &error);
  });
  SparseConvPlan plan;
  sparse_conv_pattern_plan(pattern, batch, pool.num_threads, &plan, &error);
  const double density =
      static_cast<double>(positions.size()) / (columns * g.out_channels);
  const double dense = 2e-6 * batch * height * width * columns * g.out_channels;
  const double share = dense * density / ms / peak;
  std::printf(
      "%-17s %4.0f%% %4lld %8.3f %6.0f %6.1f %5.1f %6.2f %8.2f %7.2f %8.2f "
      "%8.2f %8.3f %8.3f %s\n",
      shape.name, 100 * sparsity, (long long)batch, ms, dense / ms,
      dense * density / ms, 100 * share,
      share / (density * (shape.filter == 1 ? 0.8 : 0.95)),
      prepare_and_run - ms, renewed, grad_input_ms, grad_values_ms,
      plan.sparse_ms, plan.dense_ms, plan.kernel);
  std::fflush(stdout);
  sparse_conv_values_release(values);
  sparse_conv_pattern_release(pattern);
}

}  // namespace

int main(int argc, char** argv) {
  const char* part = argc > 1 ? argv[1] : "";
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 7;
  const char* kernel = argc > 4 ? argv[4] : nullptr;
  const char* only = std::getenv("BATCH");
  Pool threads_pool(threads);
  const SparseConvPool pool = threads_pool.pool();
  const double peak = PeakGflops(pool);
  std::printf("isa %s, %d threads, multiply-add peak %.0f GFLOP/s\n",
              sparse_conv_isa(), threads, peak);
  std::printf(
      "ratio: over a dense convolution at 95 %% (1x1: 80 %%) of the peak\n"
      "%-17s %5s %4s %8s %6s %6s %5s %6s %8s %7s %8s %8s %8s %8s\n",
      "shape", "zeros", "n", "ms", "eff", "real", "peak%", "ratio", "prepare",
      "values", "dX ms", "dW ms", "model", "dense");
  for (const Shape& shape : Shapes()) {
    if (std::strstr(shape.name, part) == nullptr) continue;
    for (const double sparsity : shape.sparsities) {
      for (const int64_t batch : {32, 1}) {
        if (only != nullptr && batch != std::atoi(only)) continue;
        if (batch == 1 && sparsity != .9) continue;
        Run(shape, sparsity, batch, batch == 1 ? 5 * rounds : rounds, kernel,
            peak, pool);
      }
    }
  }
  return 0;
}
