// Time of the codec on one core, against one read and one write pass over the
// same memory in the same run.
//
//   ternary_benchmark [elements, default 16777216] [rounds, default 11]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"

namespace {

const TernaryPool kSerial = {
    [](void*, int64_t items, int64_t, void (*body)(void*, int64_t, int64_t),
       void* context) { body(context, 0, items); },
    nullptr};

double Milliseconds(const std::function<void()>& function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now() - start)
      .count();
}

struct Case {
  std::string name;
  std::function<void()> run;
  int pass;  // index of the case it is compared with
  std::vector<double> ms;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t size = argc > 1 ? std::atoll(argv[1]) : int64_t{1} << 24;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 11;
  std::vector<float> gradient(size);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : gradient) value = normal(random);
  std::vector<float> decoded(size);
  const TernaryTensor tensor = {gradient.data(), size, kTernaryFloat32, 0};
  const TernaryTensor output = {decoded.data(), size, kTernaryFloat32, 0};
  double scaler = 0.0;
  int64_t nonzero, clipped;
  volatile float sink = 0.0f;

  std::vector<Case> cases;
  cases.push_back({"read pass (sum)",
                   [&] {
                     float lanes[32] = {};
                     for (int64_t i = 0; i + 32 <= size; i += 32) {
                       for (int l = 0; l < 32; ++l) lanes[l] += gradient[i + l];
                     }
                     sink = lanes[0];
                   },
                   0,
                   {}});
  cases.push_back({"write pass (fill)",
                   [&] { std::fill(decoded.begin(), decoded.end(), 1.0f); },
                   1,
                   {}});
  cases.push_back(
      {"scalers",
       [&] { ternary_scalers(&tensor, 1, 2.5, 0, &scaler, &kSerial); },
       0,
       {}});
  std::vector<std::vector<int64_t>> payloads;
  payloads.reserve(4);
  for (int64_t num_workers : {1, 2, 8, 64}) {
    payloads.emplace_back(ternary_num_words(size, num_workers) + 1);
    std::vector<int64_t>& payload = payloads.back();
    const std::string suffix = ", N = " + std::to_string(num_workers);
    cases.push_back(
        {"scalers + encode" + suffix,
         [&, num_workers] {
           const TernaryEncodeOptions options = {0, num_workers, 1, 2, 0};
           ternary_scalers(&tensor, 1, 2.5, 0, &scaler, &kSerial);
           ternary_encode(&tensor, 1, &options, &scaler, &scaler,
                          payload.data(), &nonzero, &clipped, &kSerial);
         },
         0,
         {}});
    cases.push_back({"decode" + suffix,
                     [&, num_workers] {
                       payload.back() = num_workers;
                       ternary_decode(payload.data(), &output, 1, 0,
                                      num_workers, &scaler, &kSerial);
                     },
                     1,
                     {}});
  }
  for (int round = 0; round <= rounds; ++round) {
    for (Case& c : cases) {
      const double ms = Milliseconds(c.run);
      if (round > 0) c.ms.push_back(ms);  // the first one warms up
    }
  }
  std::printf("%lld floats, one thread, %s, medians of %d interleaved rounds\n",
              static_cast<long long>(size), ternary_isa(), rounds);
  std::printf("%-26s%10s%10s%10s\n", "", "ms", "GB/s", "x pass");
  for (const Case& c : cases) {
    const double ms = Median(c.ms);
    std::printf("%-26s%10.2f%10.1f%10.2f\n", c.name.c_str(), ms,
                4e-6 * static_cast<double>(size) / ms,
                ms / Median(cases[c.pass].ms));
  }
  return 0;
}
