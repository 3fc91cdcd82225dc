// Tests of the codec without TensorFlow: known answers, one set of kernels
// against the other, one thread against many, round trips, a fuzz test against
// plain arithmetic.

#include "custom_ops/core/ternary/ternary.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "custom_ops/core/ternary/codec.h"
#include "custom_ops/core/ternary/half.h"
#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/philox.h"
#include "custom_ops/core/ternary/ternary_test.h"

namespace ternary {
namespace {

const TernaryPool kSerial = {
    [](void*, int64_t items, int64_t, void (*body)(void*, int64_t, int64_t),
       void* context) { body(context, 0, items); },
    nullptr};

// Three threads that take items one by one: another order every time.
const TernaryPool kThreads = {
    [](void*, int64_t items, int64_t, void (*body)(void*, int64_t, int64_t),
       void* context) {
      std::atomic<int64_t> next{0};
      std::vector<std::thread> threads;
      for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
          for (int64_t i = next++; i < items; i = next++) {
            body(context, i, i + 1);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    },
    nullptr};

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
void TestPhilox() {
  CHECK((Philox({0, 0, 0, 0}, 0) ==
         Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK((Philox({~0u, ~0u, ~0u, ~0u}, ~uint64_t{0}) ==
         Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK((Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                0x299f31d0a4093822ull) ==
         Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

void TestDivider() {
  std::mt19937_64 random(1);
  for (uint64_t divisor : {3ull, 5ull, 9ull, 625ull, 729ull, 255ull, 1ull << 20,
                           (1ull << 32) + 1, (1ull << 62) + 12345}) {
    const Divider divider(divisor);
    for (int i = 0; i < 10000; ++i) {
      const uint64_t x = random() >> (random() % 64);
      CHECK(divider.Divide(x) == x / divisor);
    }
    CHECK(divider.Divide(~uint64_t{0}) == ~uint64_t{0} / divisor);
    CHECK(divider.Divide(divisor) == 1 && divider.Divide(divisor - 1) == 0);
  }
}

void TestHalf() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float wide = FromFloat16(half);
    if (!std::isnan(wide)) CHECK(ToFloat16(wide) == half);
    const float bwide = FromBfloat16(half);
    if (!std::isnan(bwide)) CHECK(ToBfloat16(bwide) == half);
  }
  CHECK(std::isnan(FromFloat16(ToFloat16(NAN))));
  CHECK(std::isnan(FromBfloat16(ToBfloat16(NAN))));
  // Just above the middle between 1 and its successor; in float it would be
  // the middle, and then round down.
  CHECK(ToFloat16(1.0 + 0x1p-11 + 0x1p-40) == 0x3C01);
  CHECK(ToFloat16(1.0 + 0x1p-11) == 0x3C00);
  CHECK(ToBfloat16(1.0 + 0x1p-8 + 0x1p-40) == 0x3F81);
  CHECK(ToBfloat16(1.0 + 0x1p-8) == 0x3F80);
}

struct Result {
  std::vector<double> scalers;
  std::vector<int64_t> payload;
  std::vector<int64_t> counts;
  std::vector<std::vector<float>> decoded;

  bool operator==(const Result& other) const {
    if (scalers != other.scalers || payload != other.payload ||
        counts != other.counts) {
      return false;
    }
    for (size_t t = 0; t < decoded.size(); ++t) {
      if (decoded[t].size() != other.decoded[t].size() ||
          (!decoded[t].empty() &&
           std::memcmp(decoded[t].data(), other.decoded[t].data(),
                       4 * decoded[t].size()) != 0)) {
        return false;
      }
    }
    return true;
  }
};

Result RoundTrip(std::vector<std::vector<float>> gradients, int64_t bucket_size,
                 int64_t num_workers, double clip_factor, uint64_t step,
                 const TernaryPool& pool) {
  std::vector<TernaryTensor> tensors;
  int64_t num_buckets = 0;
  int64_t num_words = 1;
  for (std::vector<float>& gradient : gradients) {
    const int64_t size = static_cast<int64_t>(gradient.size());
    tensors.push_back({gradient.data(), size, kTernaryFloat32,
                       static_cast<uint32_t>(tensors.size()), 0, 0});
    num_buckets += ternary_num_buckets(size, bucket_size);
    num_words += ternary_num_words(size, num_workers);
  }
  const int count = static_cast<int>(tensors.size());
  Result result;
  result.scalers.resize(num_buckets);
  result.payload.resize(num_words);
  result.counts.resize(2 * count);
  ternary_scalers(tensors.data(), count, clip_factor, bucket_size,
                  result.scalers.data(), &pool);
  const TernaryEncodeOptions options = {bucket_size, num_workers,  17, step,
                                        3,           kTernaryWords};
  ternary_encode(tensors.data(), count, &options, result.scalers.data(),
                 result.scalers.data(), result.payload.data(),
                 result.counts.data(), &pool);
  // As if all workers had sent the same.
  std::vector<int64_t> total = result.payload;
  for (int64_t& word : total) {
    word = static_cast<int64_t>(static_cast<uint64_t>(word) *
                                static_cast<uint64_t>(num_workers));
  }
  for (const std::vector<float>& gradient : gradients) {
    result.decoded.emplace_back(gradient.size());
  }
  for (int t = 0; t < count; ++t) tensors[t].data = result.decoded[t].data();
  CHECK(ternary_decode(total.data(), kTernarySum, tensors.data(), count,
                       bucket_size, num_workers, result.scalers.data(),
                       &pool) == num_workers);
  for (int t = 0; t < count; ++t) {
    const int64_t nonzero =
        std::count_if(result.decoded[t].begin(), result.decoded[t].end(),
                      [](float value) { return value != 0.0f; });
    CHECK(nonzero == result.counts[t]);
    for (size_t i = 0; i < gradients[t].size(); ++i) {
      CHECK(result.decoded[t][i] * gradients[t][i] >= 0.0f);
    }
  }
  return result;
}

std::vector<std::vector<float>> RandomGradients(std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> gradients;
  for (int t = 0; t < 6; ++t) {
    // Also empty tensors, and some longer than a chunk.
    const int64_t size = (*random)() % (t == 5 ? 30000u : 300u);
    std::vector<float> gradient(t == 2 ? 0 : size);
    // Magnitudes from below the smallest usable scaler to large.
    const float scale =
        std::ldexp(1.0f, static_cast<int>((*random)() % 160) - 110);
    for (float& value : gradient) {
      value = (*random)() % 4 == 0 ? 0.0f : scale * normal(*random);
    }
    gradients.push_back(gradient);
  }
  return gradients;
}

void TestSetsAndThreadsGiveTheSameBits() {
  std::mt19937 random(5);
  for (int i = 0; i < 400; ++i) {
    const std::vector<std::vector<float>> gradients = RandomGradients(&random);
    const int64_t buckets[] = {0, 0, 1, 7, 16, 512, 100000};
    const int64_t bucket_size = buckets[random() % 7];
    const int64_t workers[] = {1, 2, 3, 4, 9, 11, 64, 127, 1000, 1 << 20};
    const int64_t num_workers = workers[random() % 10];
    const double clip_factor = random() % 2 ? 2.5 : 0.0;
    const uint64_t step = (uint64_t{random()} << 8) | (random() % 256);
    CHECK(ternary_set_isa("scalar"));
    const Result scalar = RoundTrip(gradients, bucket_size, num_workers,
                                    clip_factor, step, kSerial);
    CHECK(scalar == RoundTrip(gradients, bucket_size, num_workers, clip_factor,
                              step, kThreads));
    for (const Kernels* kernels : OtherKernels()) {
      SetActiveKernels(*kernels);
      CHECK(scalar == RoundTrip(gradients, bucket_size, num_workers,
                                clip_factor, step, kThreads));
    }
  }
}

// A NaN or an infinity anywhere makes its bucket NaN, and no other.
void TestNotFinite() {
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    if (!ternary_set_isa(isa)) continue;
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      for (int64_t position : {0, 15, 16, 63, 64, 4095, 4096, 8999}) {
        std::vector<float> gradient(9000, 1.0f);
        gradient[position] = bad;
        TernaryTensor tensor = {
            gradient.data(), 9000, kTernaryFloat32, 0, 0, 0};
        double scalers[9];
        ternary_scalers(&tensor, 1, 2.5, 1000, scalers, &kSerial);
        for (int b = 0; b < 9; ++b) {
          CHECK(std::isinf(scalers[b]) == (b == position / 1000));
        }
      }
    }
  }
}

// The levels of one worker, digit by digit.
std::vector<int> Levels(const std::vector<uint64_t>& words, int64_t size,
                        int64_t num_workers) {
  const uint64_t base = 2 * static_cast<uint64_t>(num_workers) + 1;
  const int digits = ternary_digits_per_word(num_workers);
  std::vector<int> levels;
  for (int64_t i = 0; i < size; ++i) {
    uint64_t rest = words[i / digits];
    for (int64_t d = 0; d < i % digits; ++d) rest /= base;
    levels.push_back(static_cast<int>(rest % base) - 1);
  }
  return levels;
}

void CheckDecodes(const void* payload, TernaryLayout layout,
                  const std::vector<int>& sum, int64_t bucket_size,
                  int64_t num_workers, const std::vector<double>& scalers) {
  const int64_t size = static_cast<int64_t>(sum.size());
  std::vector<float> decoded(size);
  const TernaryTensor output = {decoded.data(), size, kTernaryFloat32, 0, 0, 0};
  CHECK(ternary_decode(payload, layout, &output, 1, bucket_size, num_workers,
                       scalers.data(), &kThreads) == num_workers);
  for (int64_t i = 0; i < size; ++i) {
    const double scaler = scalers[bucket_size == 0 ? 0 : i / bucket_size];
    const float ratio =
        static_cast<float>(scaler) / static_cast<float>(num_workers);
    CHECK(decoded[i] == static_cast<float>(sum[i]) * ratio);
  }
}

// Encoding, adding and decoding is the sum of the levels, by either payload.
void TestFuzz() {
  std::mt19937 random(23);
  std::normal_distribution<float> normal;
  std::vector<const Kernels*> sets = OtherKernels();
  sets.push_back(&kScalarKernels);
  for (int round = 0; round < 300; ++round) {
    SetActiveKernels(*sets[round % sets.size()]);
    const int64_t size = random() % (round % 10 == 0 ? 40000 : 1000);
    const int64_t num_workers = 1 + random() % (round % 5 == 0 ? 150 : 6);
    const int64_t bucket_size = random() % 3 == 0 ? 1 + random() % 700 : 0;
    const int64_t num_words = ternary_num_words(size, num_workers);
    const int64_t groups = ternary_num_groups(size);
    std::vector<float> gradient(size);
    TernaryTensor tensor = {gradient.data(), size, kTernaryFloat32, 5, 0, 0};
    std::vector<double> scalers(ternary_num_buckets(size, bucket_size), 2.0);
    for (double& scaler : scalers) scaler += random() % 100;

    std::vector<int> sum(size);
    std::vector<uint64_t> words(num_words + 1);
    std::vector<uint64_t> total(num_words + 1);
    std::vector<uint8_t> parts;
    for (int64_t worker = 0; worker < num_workers; ++worker) {
      for (float& value : gradient) value = normal(random);
      TernaryEncodeOptions options = {
          bucket_size,  num_workers, random(), 3, static_cast<uint32_t>(worker),
          kTernaryWords};
      int64_t counts[2] = {};
      int64_t counts_of_trits[2] = {};
      ternary_encode(&tensor, 1, &options, scalers.data(), scalers.data(),
                     words.data(), counts, &kThreads);
      const std::vector<int> levels = Levels(words, size, num_workers);
      for (int64_t i = 0; i <= num_words; ++i) total[i] += words[i];
      for (int64_t i = 0; i < size; ++i) sum[i] += levels[i];
      CHECK(counts[0] == size - std::count(levels.begin(), levels.end(), 0));

      options.format = kTernaryTrits;
      const size_t part = parts.size();
      parts.resize(part + kTernaryGroupBytes * groups);
      ternary_encode(&tensor, 1, &options, scalers.data(), scalers.data(),
                     parts.data() + part, counts_of_trits, &kThreads);
      CHECK(counts[0] == counts_of_trits[0]);
      CHECK(counts[1] == counts_of_trits[1]);
      for (int64_t i = 0; i < size; ++i) {
        int rest = parts[part + i / kTernaryGroup * kTernaryGroupBytes +
                         i % kTernaryGroupBytes];
        for (int64_t k = 0; k < i % kTernaryGroup / kTernaryGroupBytes; ++k) {
          rest /= 3;
        }
        CHECK(rest % 3 - 1 == levels[i]);
      }
    }
    CheckDecodes(total.data(), kTernarySum, sum, bucket_size, num_workers,
                 scalers);
    CheckDecodes(parts.data(), kTernaryGathered, sum, bucket_size, num_workers,
                 scalers);
    std::vector<int64_t> summed(
        ternary_num_words(kTernaryGroup * groups, num_workers));
    ternary_sum_trits(parts.data(), groups, num_workers, summed.data(),
                      &kThreads);
    CheckDecodes(summed.data(), kTernarySumOfTrits, sum, bucket_size,
                 num_workers, scalers);
  }
}

// Parts say together what the whole says, by every layout.
void TestCut() {
  std::mt19937 random(29);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::vector<float>> gradients = RandomGradients(&random);
    const int64_t bucket_size = random() % 3 == 0 ? 1 + random() % 700 : 0;
    const int64_t num_workers = 1 + random() % 5;
    const int64_t num_parts = 1 + random() % 6;
    std::vector<TernaryTensor> whole;
    std::vector<std::vector<float>> decoded;
    std::vector<TernaryTensor> output;
    int64_t groups = 0;
    int64_t num_buckets = 0;
    for (std::vector<float>& gradient : gradients) {
      const int64_t size = static_cast<int64_t>(gradient.size());
      decoded.emplace_back(size, NAN);
      const uint32_t id = static_cast<uint32_t>(whole.size());
      whole.push_back({gradient.data(), size, kTernaryFloat32, id, 0, 0});
      output.push_back({decoded[id].data(), size, kTernaryFloat32, id, 0, 0});
      groups += ternary_num_groups(size);
      num_buckets += ternary_num_buckets(size, bucket_size);
    }
    const int count = static_cast<int>(whole.size());
    std::vector<double> scalers(num_buckets);
    ternary_scalers(whole.data(), count, 2.5, bucket_size, scalers.data(),
                    &kThreads);
    TernaryEncodeOptions options = {bucket_size, num_workers, 1,
                                    2,           3,           kTernaryTrits};
    const auto encode = [&](const std::vector<TernaryTensor>& tensors,
                            void* payload, std::vector<int64_t>* counts) {
      counts->resize(2 * count);
      ternary_encode(tensors.data(), count, &options, scalers.data(),
                     scalers.data(), payload, counts->data(), &kThreads);
    };
    std::vector<uint8_t> trits(groups * kTernaryGroupBytes);
    std::vector<int64_t> counts;
    encode(whole, trits.data(), &counts);
    std::vector<std::vector<float>> expected = decoded;
    std::vector<TernaryTensor> expected_output = output;
    std::vector<uint8_t> copies;
    for (int t = 0; t < count; ++t)
      expected_output[t].data = expected[t].data();
    for (int64_t worker = 0; worker < num_workers; ++worker) {
      copies.insert(copies.end(), trits.begin(), trits.end());
    }
    ternary_decode(copies.data(), kTernaryGathered, expected_output.data(),
                   count, bucket_size, num_workers, scalers.data(), &kThreads);

    std::vector<int64_t> counts_of_trits;
    std::vector<int64_t> counts_of_words;
    const uint8_t* next = trits.data();
    for (int64_t part = 0; part < num_parts; ++part) {
      std::vector<TernaryTensor> cut = whole;
      std::vector<TernaryTensor> cut_output = output;
      ternary_cut(cut.data(), count, part, num_parts);
      ternary_cut(cut_output.data(), count, part, num_parts);
      int64_t groups_of_part = 0;
      int64_t words_of_part = 1;
      for (const TernaryTensor& tensor : cut) {
        const int64_t size = tensor.size - tensor.before - tensor.after;
        CHECK(size == 0 || tensor.before % kTernaryGroup == 0);
        groups_of_part += ternary_num_groups(size);
        words_of_part += ternary_num_words(size, num_workers);
      }
      std::vector<uint8_t> trits_of_part(groups_of_part * kTernaryGroupBytes);
      options.format = kTernaryTrits;
      encode(cut, trits_of_part.data(), &counts_of_trits);
      CHECK(std::equal(trits_of_part.begin(), trits_of_part.end(), next));
      next += trits_of_part.size();
      const auto decode = [&](const void* payload, TernaryLayout layout) {
        CHECK(ternary_decode(payload, layout, cut_output.data(), count,
                             bucket_size, num_workers, scalers.data(),
                             &kThreads) == num_workers);
      };
      std::vector<int64_t> words(words_of_part);
      options.format = kTernaryWords;
      encode(cut, words.data(), &counts_of_words);
      const int layout = random() % 3;
      if (layout == kTernarySum) {
        for (int64_t& word : words) {
          word = static_cast<int64_t>(static_cast<uint64_t>(word) *
                                      static_cast<uint64_t>(num_workers));
        }
        decode(words.data(), kTernarySum);
        continue;
      }
      std::vector<uint8_t> parts;
      for (int64_t worker = 0; worker < num_workers; ++worker) {
        parts.insert(parts.end(), trits_of_part.begin(), trits_of_part.end());
      }
      if (layout == kTernaryGathered) {
        decode(parts.data(), kTernaryGathered);
        continue;
      }
      std::vector<int64_t> sums(
          ternary_num_words(kTernaryGroup * groups_of_part, num_workers));
      ternary_sum_trits(parts.data(), groups_of_part, num_workers, sums.data(),
                        &kThreads);
      decode(sums.data(), kTernarySumOfTrits);
    }
    CHECK(next == trits.data() + trits.size());
    CHECK(counts == counts_of_trits);
    CHECK(counts == counts_of_words);
    for (int t = 0; t < count; ++t) {
      CHECK(decoded[t].empty() ||
            std::memcmp(decoded[t].data(), expected[t].data(),
                        4 * decoded[t].size()) == 0);
    }
  }
}

void TestGuard() {
  int64_t payload[] = {0, 7};
  float value = 42.0f;
  const TernaryTensor tensor = {&value, 1, kTernaryFloat32, 0, 0, 0};
  const double scaler = 1.0;
  CHECK(ternary_decode(payload, kTernarySum, &tensor, 1, 0, 2, &scaler,
                       &kSerial) == 7);
  CHECK(value == 42.0f);
}

}  // namespace
}  // namespace ternary

int main() {
  ternary::TestPhilox();
  ternary::TestDivider();
  ternary::TestHalf();
  ternary::TestSetsAndThreadsGiveTheSameBits();
  ternary::TestNotFinite();
  ternary::TestKernels();
  ternary::TestFuzz();
  ternary::TestCut();
  ternary::TestGuard();
  std::printf("ternary_test: all passed with scalar");
  for (const ternary::Kernels* kernels : ternary::OtherKernels()) {
    std::printf(
        ", %s%s", kernels->name,
        kernels == ternary::EmulatedAvx512Kernels() ? " (emulated)" : "");
  }
  std::printf("\n");
  return 0;
}
