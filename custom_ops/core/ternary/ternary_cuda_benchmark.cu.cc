// Time of the CUDA codec against a copy by the device's own memory in the same
// run: share of copy bandwidth, counting the bytes that each must move.
//
//   ternary_cuda_benchmark [elements, default 67108864] [rounds, default 21]

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "custom_ops/core/cuda_program.h"
#include "custom_ops/core/ternary/ternary_cuda.h"

namespace {

template <typename T>
T* Allocate(int64_t count) {
  void* memory;
  CHECK_CUDA(cudaMalloc(&memory, count * sizeof(T)));
  return static_cast<T*>(memory);
}

struct Case {
  std::string name;
  double bytes;
  std::function<void()> run;
  std::vector<double> ms;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t size = argc > 1 ? std::atoll(argv[1]) : int64_t{1} << 26;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 21;
  if (!HasGpu("ternary_cuda_benchmark")) return kSkipped;
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));

  std::vector<float> host(size);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : host) value = normal(random);
  float* gradient = Allocate<float>(size);
  float* decoded = Allocate<float>(size);
  float* scaler = Allocate<float>(1);
  int64_t* counts = Allocate<int64_t>(2);
  int64_t* guard = Allocate<int64_t>(1);
  CHECK_CUDA(
      cudaMemcpy(gradient, host.data(), 4 * size, cudaMemcpyHostToDevice));
  const TernaryTensor tensor = {gradient, size, kTernaryFloat32, 0, 0, 0};
  const TernaryTensor output = {decoded, size, kTernaryFloat32, 0, 0, 0};
  char* workspace =
      Allocate<char>(std::max(ternary_cuda_scalers_workspace(&tensor, 1, 0),
                              ternary_cuda_codec_workspace(1)));
  const double tensor_bytes = 4.0 * static_cast<double>(size);

  std::vector<Case> cases;
  cases.push_back({"copy",
                   2 * tensor_bytes,
                   [&] {
                     CHECK_CUDA(cudaMemcpyAsync(decoded, gradient, 4 * size,
                                                cudaMemcpyDeviceToDevice,
                                                stream));
                   },
                   {}});
  cases.push_back({"scalers",
                   tensor_bytes,
                   [&] {
                     CHECK_CUDA(ternary_cuda_scalers(&tensor, 1, 2.5, 0,
                                                     kTernaryFloat32, scaler,
                                                     workspace, stream));
                   },
                   {}});
  for (int64_t num_workers : {1, 2, 8, 64}) {
    const int64_t words = ternary_num_words(size, num_workers);
    const double bytes = tensor_bytes + 8.0 * static_cast<double>(words);
    int64_t* payload = Allocate<int64_t>(words + 1);
    const auto encode = [=, &tensor] {
      const TernaryEncodeOptions options = {0, num_workers, 1,
                                            2, 0,           kTernaryWords};
      CHECK_CUDA(ternary_cuda_encode(&tensor, 1, &options, kTernaryFloat32,
                                     scaler, scaler, payload, counts, workspace,
                                     stream));
    };
    // The payload of one worker, so its guard word is 1 and the values NaN if
    // there should be more: the time is the same.
    const auto decode = [=, &output] {
      CHECK_CUDA(ternary_cuda_decode(payload, kTernarySum, &output, 1, 0,
                                     num_workers, kTernaryFloat32, scaler,
                                     guard, workspace, stream));
    };
    const std::string suffix = ", N = " + std::to_string(num_workers);
    cases.push_back({"encode" + suffix, bytes, encode, {}});
    cases.push_back({"decode" + suffix, bytes, decode, {}});
    cases.push_back({"encode + decode" + suffix,
                     2 * bytes,
                     [=] {
                       encode();
                       decode();
                     },
                     {}});
  }
  for (int round = 0; round <= rounds; ++round) {
    for (Case& c : cases) {
      CHECK_CUDA(cudaEventRecord(begin, stream));
      c.run();
      CHECK_CUDA(cudaEventRecord(end, stream));
      CHECK_CUDA(cudaEventSynchronize(end));
      float ms;
      CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (round > 0) c.ms.push_back(ms);  // the first one warms up
    }
  }
  std::printf("%lld floats, %s, medians of %d interleaved rounds\n",
              static_cast<long long>(size), properties.name, rounds);
  std::printf("%-26s%10s%10s%10s\n", "", "ms", "GB/s", "x copy");
  const double copy = cases[0].bytes / Median(cases[0].ms);
  for (const Case& c : cases) {
    const double ms = Median(c.ms);
    std::printf("%-26s%10.3f%10.0f%10.2f\n", c.name.c_str(), ms,
                1e-6 * c.bytes / ms, c.bytes / ms / copy);
  }
  return 0;
}
