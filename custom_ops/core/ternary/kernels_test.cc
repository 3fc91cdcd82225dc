// Every set of kernels against the scalar one, to the bit, part of
// ternary_test. (Scalers, NaN and infinity: ternary_test.cc.)

#include "custom_ops/core/ternary/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "custom_ops/core/ternary/codec.h"
#include "custom_ops/core/ternary/ternary.h"
#include "custom_ops/core/ternary/ternary_test.h"

namespace ternary {
namespace {

// Arrays begin this many elements into their vectors, up to kMaxShift: at any
// alignment.
constexpr int kMaxShift = 8;

template <typename T>
bool SameBits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t Bits() { return engine_(); }
  int64_t Below(int64_t n) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n));
  }
  double Normal() { return normal_(engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// Normal values, or what is hard: exact products of scaler / 256, the scaler
// itself, zeros of both signs, values far above the scaler.
template <typename T>
std::vector<T> Values(int64_t size, T scaler, Random* random) {
  const int64_t kind = random->Below(6);
  std::vector<T> values(size);
  for (T& value : values) {
    const T normal = static_cast<T>(random->Normal() / 2.5) * scaler;
    const T sign = static_cast<T>(random->Below(2) ? 1 : -1);
    switch (kind == 5 ? random->Below(5) : kind) {
      case 0:
        value = normal;
        break;
      case 1:
        value = sign * scaler;
        break;
      case 2:
        value = sign * (scaler / 256 * static_cast<T>(random->Below(257)));
        break;
      case 3:
        value = sign * std::ldexp(scaler, static_cast<int>(random->Below(20)));
        break;
      default:
        value = random->Below(2) ? normal : sign * T{0};
    }
    if (!std::isfinite(value)) value = scaler;
  }
  return values;
}

template <typename T>
void CompareTernarize(Counts (*expected)(const Run<T>&, uint16_t*, uint16_t*),
                      Counts (*actual)(const Run<T>&, uint16_t*, uint16_t*),
                      Random* random) {
  const T magnitude = static_cast<T>(
      std::ldexp(1.0 + random->Below(2) * 0.37 * random->Below(3),
                 static_cast<int>(random->Below(200)) - 100));
  const int64_t count = random->Below(random->Below(8) ? 700 : 20000);
  // At times, where the low word of a counter overflows.
  const int64_t limits[] = {0, 0, int64_t{1} << 32, int64_t{1} << 36};
  const int64_t limit = limits[random->Below(4)];
  const int64_t first =
      limit != 0 ? limit - random->Below(count + 1) : random->Below(100000);
  const int64_t shift = random->Below(kMaxShift);
  const std::vector<T> data = Values(count + shift, magnitude, random);
  const T clip_levels[] = {
      magnitude, magnitude / 2, static_cast<T>(magnitude * 0.7),
      static_cast<T>(magnitude * 3), std::numeric_limits<T>::infinity()};
  const Stream stream = {random->Bits(), random->Bits() >> 24,
                         static_cast<uint32_t>(random->Below(1 << 24)),
                         static_cast<uint32_t>(random->Below(1 << 24))};
  const Run<T> run = {data.data() + shift,
                      first,
                      count,
                      first % kPhiloxBlock + kPhiloxBlock * random->Below(9),
                      clip_levels[random->Below(5)],
                      magnitude,
                      &stream};
  const size_t entries = (run.first_bit + count) / 16 + 1;
  // Neighbours' bits are there already, before and after the run.
  std::vector<uint16_t> plus[2];
  std::vector<uint16_t> minus[2];
  for (int i = 0; i < 2; ++i) {
    plus[i].assign(entries, 0);
    minus[i].assign(entries, 0);
    plus[i][run.first_bit / 16] =
        static_cast<uint16_t>((1u << (run.first_bit % 16)) - 1);
  }
  const Counts a = expected(run, plus[0].data(), minus[0].data());
  const Counts b = actual(run, plus[1].data(), minus[1].data());
  CHECK(plus[0] == plus[1] && minus[0] == minus[1]);
  CHECK(a.nonzero == b.nonzero && a.clipped == b.clipped);
}

template <typename T>
void CompareStatistics(Statistics (*expected)(const T*, int64_t),
                       Statistics (*actual)(const T*, int64_t),
                       double (*expected_max)(const T*, int64_t),
                       double (*actual_max)(const T*, int64_t),
                       Random* random) {
  const int64_t count = random->Below(kStatisticsBlock + 1);
  const int64_t shift = random->Below(kMaxShift);
  const T scale = static_cast<T>(
      std::ldexp(1.0, static_cast<int>(random->Below(200)) - 100));
  std::vector<T> data = Values(count + shift, scale, random);
  const T* begin = data.data() + shift;
  CHECK(SameBits(expected(begin, count), actual(begin, count)));
  CHECK(expected(begin, count).abs_max == expected_max(begin, count));
  CHECK(expected_max(begin, count) == actual_max(begin, count));
  if (count != 0) {
    const T bad[] = {std::numeric_limits<T>::infinity(),
                     -std::numeric_limits<T>::infinity(),
                     std::numeric_limits<T>::quiet_NaN(),
                     -std::numeric_limits<T>::quiet_NaN()};
    data[shift + random->Below(count)] = bad[random->Below(4)];
    CHECK(std::isinf(expected(begin, count).abs_max));
    CHECK(std::isinf(actual(begin, count).abs_max));
    CHECK(std::isinf(actual_max(begin, count)));
  }
}

void CompareWiden(void (*expected)(const uint16_t*, int64_t, float*),
                  void (*actual)(const uint16_t*, int64_t, float*)) {
  std::vector<uint16_t> data(0x10000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint16_t>(i);
  for (int64_t count : {0, 1, 7, 15, 17, 0x10000}) {
    std::vector<float> a(count + 1, 7.0f);
    std::vector<float> b(count + 1, 7.0f);
    expected(data.data(), count, a.data());
    actual(data.data(), count, b.data());
    for (int64_t i = 0; i <= count; ++i) {
      // A NaN may become a quiet one.
      CHECK(SameBits(a[i], b[i]) || (std::isnan(a[i]) && std::isnan(b[i])));
    }
  }
}

void CompareTrits(const Kernels& expected, const Kernels& actual,
                  Random* random) {
  const int64_t groups = random->Below(20);
  const int64_t shift = random->Below(kMaxShift);
  std::vector<uint16_t> plus(10 * groups + shift);
  std::vector<uint16_t> minus(10 * groups + shift);
  for (size_t i = 0; i < plus.size(); ++i) {
    plus[i] = static_cast<uint16_t>(random->Bits());
    minus[i] = static_cast<uint16_t>(random->Bits() & ~plus[i]);
  }
  std::vector<uint8_t> bytes[2];
  std::vector<uint8_t> sums[2];
  for (int i = 0; i < 2; ++i) {
    const Kernels& kernels = i == 0 ? expected : actual;
    bytes[i].resize(32 * groups + shift);
    kernels.pack_trits(plus.data() + shift, minus.data() + shift, groups,
                       bytes[i].data() + shift);
    sums[i].assign(160 * groups + shift, 5);
    kernels.add_trits(bytes[i].data() + shift, groups, sums[i].data() + shift);
  }
  CHECK(bytes[0] == bytes[1]);
  CHECK(sums[0] == sums[1]);
  for (int64_t i = 0; i < 160 * groups; ++i) {
    const int64_t entry = shift + i / 16;
    CHECK(sums[1][shift + i] == 6 + ((plus[entry] >> (i % 16)) & 1) -
                                    ((minus[entry] >> (i % 16)) & 1));
  }

  // All bytes: above 242 none is sent, but none may be misread either.
  std::vector<uint8_t> all(256);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint8_t>(i);
  for (std::vector<uint8_t>& sum : sums) sum.assign(160 * 8, 0);
  expected.add_trits(all.data(), 8, sums[0].data());
  actual.add_trits(all.data(), 8, sums[1].data());
  CHECK(sums[0] == sums[1]);
}

void CompareScale(const Kernels& expected, const Kernels& actual,
                  Random* random) {
  const int64_t count = random->Below(300);
  const int64_t shift = random->Below(kMaxShift);
  std::vector<uint8_t> sums(count + shift);
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] = static_cast<uint8_t>(random->Bits());
  }
  const float ratio = static_cast<float>(random->Normal());
  const int32_t offset = static_cast<int32_t>(random->Below(128));
  const bool past_cache = random->Below(2) == 1;
  std::vector<float> out[2];
  for (int i = 0; i < 2; ++i) {
    const Kernels& kernels = i == 0 ? expected : actual;
    out[i].resize(count + shift);
    kernels.scale_u8(sums.data() + shift, count, offset, ratio, past_cache,
                     out[i].data() + shift);
  }
  for (size_t i = 0; i < out[0].size(); ++i) {
    CHECK(SameBits(out[0][i], out[1][i]));
  }
}

// Digits of random words of all workers from 1 to 127.
void CompareUnpack(const Kernels& actual, Random* random) {
  for (int64_t num_workers = 1; num_workers <= kMaxByteWorkers; ++num_workers) {
    const Codec& codec = Codec::ForWorkers(num_workers);
    const int64_t num_words = random->Below(40);
    const int64_t count = num_words * codec.digits();
    std::vector<int32_t> sums(count);
    for (int32_t& sum : sums) {
      const int64_t largest = 2 * num_workers;
      sum = static_cast<int32_t>(random->Below(3) == 0
                                     ? random->Below(2) * largest
                                     : random->Below(largest + 1));
    }
    std::vector<uint64_t> words(num_words);
    codec.PackSums(sums.data(), count, words.data());
    std::vector<uint8_t> digits(count + 2 * kDigitSlack);
    const Kernels& before = ActiveKernels();
    SetActiveKernels(actual);
    codec.Unpack(words.data(), num_words, digits.data() + kDigitSlack);
    SetActiveKernels(before);
    std::vector<int32_t> wide(count);
    codec.Unpack(words.data(), num_words, wide.data());
    for (int64_t i = 0; i < count; ++i) {
      CHECK(digits[kDigitSlack + i] == sums[i]);
      CHECK(wide[i] == sums[i]);
    }
  }
}

}  // namespace

std::vector<const Kernels*> OtherKernels() {
  std::vector<const Kernels*> sets;
  for (const char* isa : {"avx2", "avx512"}) {
    if (ternary_set_isa(isa)) sets.push_back(&ActiveKernels());
  }
  if (EmulatedAvx512Kernels() != nullptr) {
    sets.push_back(EmulatedAvx512Kernels());
  }
  return sets;
}

void TestKernels() {
  const Kernels& scalar = kScalarKernels;
  Random words(12);
  CompareUnpack(scalar, &words);
  for (const Kernels* set : OtherKernels()) {
    Random random(11);
    CompareWiden(scalar.widen_f16, set->widen_f16);
    CompareWiden(scalar.widen_bf16, set->widen_bf16);
    for (int i = 0; i < 300; ++i) {
      CompareTernarize(scalar.ternarize_f32, set->ternarize_f32, &random);
      CompareTernarize(scalar.ternarize_f64, set->ternarize_f64, &random);
      CompareStatistics(scalar.statistics_f32, set->statistics_f32,
                        scalar.abs_max_f32, set->abs_max_f32, &random);
      CompareStatistics(scalar.statistics_f64, set->statistics_f64,
                        scalar.abs_max_f64, set->abs_max_f64, &random);
      CompareTrits(scalar, *set, &random);
      CompareScale(scalar, *set, &random);
    }
    for (int i = 0; i < 30; ++i) CompareUnpack(*set, &random);
  }
}

}  // namespace ternary
