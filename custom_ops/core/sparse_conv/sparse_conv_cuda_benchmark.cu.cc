// Time of the CUDA convolution, batch 32, on layers of AlexNet and ResNet-50:
// effective TFLOP/s (zeros counted) and real ones (non-zeros), as a share of
// what multiply-adds between registers reach in the same run, on CUDA cores for
// "direct" and on tensor cores for "tf32" and "bf16". The row "none" of a layer
// has all weights, on TF32 tiles: a dense convolution by the same means, not
// cuDNN. Each result is compared with "direct" of the same weights.
//
//   sparse_conv_cuda_benchmark [rounds, default 21] [batch, default 32]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "custom_ops/core/cuda_program.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda.h"

namespace {

template <typename T>
T* Allocate(int64_t count) {
  void* memory;
  CHECK_CUDA(cudaMalloc(&memory, (count + 1) * sizeof(T)));
  return static_cast<T*>(memory);
}

template <typename T>
T* Upload(const std::vector<T>& values) {
  T* memory = Allocate<T>(static_cast<int64_t>(values.size()));
  CHECK_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T),
                        cudaMemcpyHostToDevice));
  return memory;
}

// --- Peaks -------------------------------------------------------------------

constexpr int kTurns = 1 << 14;
constexpr int kChains = 16;

__global__ void SpinFma(float* out) {
  float sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = threadIdx.x + i;
  const float factor = out[0];
  for (int turn = 0; turn < kTurns; ++turn) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) sum[i] = fmaf(sum[i], factor, factor);
  }
  float total = 0;
  for (int i = 0; i < kChains; ++i) total += sum[i];
  if (total == 1.5f) out[1] = total;
}

template <bool is_bf16>
__global__ void SpinTensor(float* out) {
  float sum[kChains][4] = {};
  const unsigned a = __float_as_uint(out[0]);
  for (int turn = 0; turn < kTurns / 16; ++turn) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) {
      float* s = sum[i];
      if constexpr (is_bf16) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a));
      } else {
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a));
      }
    }
  }
  float total = 0;
  for (int i = 0; i < kChains; ++i) total += sum[i][0] + sum[i][3];
  if (total == 1.5f) out[1] = total;
}

template <typename Run>
double MedianMs(int rounds, cudaStream_t stream, const Run& run) {
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  std::vector<double> times;
  for (int round = 0; round <= rounds; ++round) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    run();
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    float ms;
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (round > 0) times.push_back(ms);  // the first one warms up
  }
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Peaks {
  double direct, tf32, bf16;  // TFLOP/s
};

Peaks MeasurePeaks(int multiprocessors, cudaStream_t stream) {
  float* out = Upload(std::vector<float>{0.5f, 0.0f});
  const int blocks = multiprocessors * 4;
  constexpr int kThreads = 256;
  const double threads = double{kThreads} * blocks;
  Peaks peaks;
  peaks.direct = 2e-9 * kTurns * kChains * threads / MedianMs(5, stream, [&] {
                   SpinFma<<<blocks, kThreads, 0, stream>>>(out);
                 });
  const double products = 2e-9 * (kTurns / 16) * kChains * threads / 32;
  peaks.tf32 = products * 16 * 8 * 8 / MedianMs(5, stream, [&] {
                 SpinTensor<false><<<blocks, kThreads, 0, stream>>>(out);
               });
  peaks.bf16 = products * 16 * 8 * 16 / MedianMs(5, stream, [&] {
                 SpinTensor<true><<<blocks, kThreads, 0, stream>>>(out);
               });
  CHECK_CUDA(cudaFree(out));
  return peaks;
}

// --- Layers ------------------------------------------------------------------

struct Layer {
  const char* name;
  int64_t size, in_channels, out_channels, filter, stride, groups;
};

constexpr Layer kLayers[] = {
    {"alexnet conv2", 27, 96, 256, 5, 1, 2},
    {"alexnet conv3", 13, 256, 384, 3, 1, 1},
    {"resnet 3x3 56", 56, 64, 64, 3, 1, 1},
    {"resnet 3x3 28", 28, 128, 128, 3, 1, 1},
    {"resnet 3x3 14", 14, 256, 256, 3, 1, 1},
    {"resnet 3x3 28 s2", 28, 256, 256, 3, 2, 1},
    {"resnet 1x1 28", 28, 512, 128, 1, 1, 1},
    {"resnet 1x1 14", 14, 256, 1024, 1, 1, 1},
};

enum Arrangement { kAll, kRandom, kColumns, kBlocks };

struct Pattern {
  const char* name;
  Arrangement arrangement;
  int block;
  double density;
};

constexpr Pattern kPatterns[] = {
    {"none", kAll, 1, 1.0},
    {"random 90 %", kRandom, 1, 0.1},
    {"random 95 %", kRandom, 1, 0.05},
    {"columns 50 %", kColumns, 1, 0.5},
    {"columns 75 %", kColumns, 1, 0.25},
    {"16x16 90 %", kBlocks, 16, 0.1},
    {"32x32 90 %", kBlocks, 32, 0.1},
};

std::vector<int64_t> PositionsOf(const Layer& layer, const Pattern& pattern,
                                 std::mt19937* random) {
  std::bernoulli_distribution live(pattern.density);
  const int64_t channels = layer.in_channels / layer.groups;
  const int64_t columns = layer.filter * layer.filter * channels;
  const int64_t blocks =
      (layer.out_channels + pattern.block - 1) / pattern.block;
  const int64_t of_tap = (channels + pattern.block - 1) / pattern.block;
  std::vector<bool> live_blocks(layer.filter * layer.filter * of_tap * blocks);
  for (size_t i = 0; i < live_blocks.size(); ++i)
    live_blocks[i] = live(*random);
  std::vector<int64_t> positions;
  for (int64_t column = 0; column < columns; ++column) {
    const bool live_column = live(*random);
    const int64_t row =
        column / channels * of_tap + column % channels / pattern.block;
    for (int64_t o = 0; o < layer.out_channels; ++o) {
      const bool take = pattern.arrangement == kAll ||
                        (pattern.arrangement == kRandom && live(*random)) ||
                        (pattern.arrangement == kColumns && live_column) ||
                        (pattern.arrangement == kBlocks &&
                         live_blocks[row * blocks + o / pattern.block]);
      if (take) positions.push_back(column * layer.out_channels + o);
    }
  }
  return positions;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 32;
  if (!HasGpu("sparse_conv_cuda_benchmark")) return kSkipped;
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const Peaks peaks = MeasurePeaks(properties.multiProcessorCount, stream);
  std::printf(
      "%s, batch %lld, NHWC, medians of %d rounds\n"
      "peaks measured, TFLOP/s: float32 %.1f, TF32 %.1f, bf16 %.1f\n",
      properties.name, static_cast<long long>(batch), rounds, peaks.direct,
      peaks.tf32, peaks.bf16);
  std::printf("%-17s%-14s%-7s%5s%4s%9s%10s%8s%8s%10s\n", "layer", "zeros",
              "kernel", "tile", "px", "ms", "effective", "real", "% peak",
              "model ms");
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const Layer& layer : kLayers) {
    const int64_t pad = layer.filter / 2;
    const SparseConvGeometry geometry = {layer.size,
                                         layer.size,
                                         layer.in_channels,
                                         layer.filter,
                                         layer.filter,
                                         layer.out_channels,
                                         layer.stride,
                                         layer.stride,
                                         1,
                                         1,
                                         pad,
                                         pad,
                                         pad,
                                         pad,
                                         layer.groups,
                                         kSparseConvNhwc};
    int64_t height, width;
    SparseConvError error;
    sparse_conv_output_size(&geometry, &height, &width, &error);
    std::vector<float> host(batch * layer.size * layer.size *
                            layer.in_channels);
    for (float& value : host) value = normal(random);
    float* input = Upload(host);
    const int64_t outputs = batch * height * width * layer.out_channels;
    float* output = Allocate<float>(outputs);
    const double dense_flops = 2.0 * outputs * layer.filter * layer.filter *
                               layer.in_channels / layer.groups;
    for (const Pattern& pattern : kPatterns) {
      const std::vector<int64_t> positions =
          PositionsOf(layer, pattern, &random);
      std::vector<float> weights(positions.size());
      for (float& value : weights) value = normal(random);
      float* values = Upload(weights);
      std::vector<float> expected;
      for (const char* kernel : {"direct", "tf32", "bf16"}) {
        SparseConvCudaOptions options = {};
        options.kernel = kernel;
        options.batch = batch;
        SparseConvCudaPattern* made = nullptr;
        if (sparse_conv_cuda_pattern_create_int64(
                &geometry, positions.data(),
                static_cast<int64_t>(positions.size()), &options, &made,
                &error) != kSparseConvOk) {
          std::printf("%s\n", error.message);
          return 1;
        }
        const int64_t bytes = sparse_conv_cuda_image_bytes(made);
        char* image = Allocate<char>(bytes);
        CHECK_CUDA(cudaMemcpy(image, sparse_conv_cuda_image(made), bytes,
                              cudaMemcpyHostToDevice));
        CHECK_CUDA(sparse_conv_cuda_set_values(made, image, values,
                                               kSparseConvFloat32, stream));
        const double ms = MedianMs(rounds, stream, [&] {
          CHECK_CUDA(sparse_conv_cuda_convolve(made, image, batch, input,
                                               nullptr, kSparseConvNone, output,
                                               stream));
        });
        std::vector<float> found(outputs);
        CHECK_CUDA(cudaMemcpy(found.data(), output, outputs * sizeof(float),
                              cudaMemcpyDeviceToHost));
        if (expected.empty()) expected = found;
        double difference = 0, norm = 0;
        for (int64_t i = 0; i < outputs; ++i) {
          difference += (found[i] - expected[i]) * (found[i] - expected[i]);
          norm += expected[i] * expected[i];
        }
        if (!(difference <= 1e-4 * norm)) {
          std::printf("%s differs from direct: %g of %g\n", kernel, difference,
                      norm);
          return 1;
        }
        SparseConvCudaPlan plan;
        sparse_conv_cuda_pattern_plan(made, &plan);
        const double effective = 1e-9 * dense_flops / ms;
        const double density =
            static_cast<double>(positions.size()) /
            (layer.filter * layer.filter * layer.in_channels / layer.groups *
             layer.out_channels);
        const double peak = std::string(kernel) == "direct" ? peaks.direct
                            : std::string(kernel) == "tf32" ? peaks.tf32
                                                            : peaks.bf16;
        std::printf("%-17s%-14s%-7s%5d%4d%9.4f%10.1f%8.1f%8.1f%10.4f\n",
                    layer.name, pattern.name, kernel, plan.tile_filters,
                    plan.pixels, ms, effective, effective * density,
                    100 * effective * density / peak, plan.cycles / 1.755e6);
        CHECK_CUDA(cudaFree(image));
        sparse_conv_cuda_pattern_free(made);
      }
      CHECK_CUDA(cudaFree(values));
    }
    CHECK_CUDA(cudaFree(input));
    CHECK_CUDA(cudaFree(output));
  }
  return 0;
}
