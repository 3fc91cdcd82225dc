#include "custom_ops/core/ternary/codec.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

namespace ternary {
namespace {

// A remainder table must stay in the first-level cache.
constexpr uint64_t kMaxTableEntries = 1024;

// Largest number of digits, at most `limit`, whose values number at most
// `max_values`; at least 1.
int DigitsWithin(uint64_t base, unsigned __int128 max_values, int limit) {
  unsigned __int128 values = base;
  int digits = 1;
  while (digits < limit && values * base <= max_values) {
    values *= base;
    ++digits;
  }
  return digits;
}

uint64_t Power(uint64_t base, int exponent) {
  uint64_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= base;
  return power;
}

uint64_t LoadBits(const uint16_t* plane, int64_t first_bit) {
  uint64_t bits;
  std::memcpy(&bits, reinterpret_cast<const char*>(plane) + (first_bit >> 3),
              sizeof(bits));
  return bits >> (first_bit & 7);
}

}  // namespace

Divider::Divider(uint64_t divisor) {
  int log2 = 1;  // ceil(log2(divisor)), divisor <= 2^63
  while ((uint64_t{1} << log2) < divisor) ++log2;
  const unsigned __int128 excess = (uint64_t{1} << log2) - divisor;
  multiplier_ = static_cast<uint64_t>((excess << 64) / divisor + 1);
  shift_ = log2 - 1;
}

const Codec& Codec::ForWorkers(int64_t num_workers) {
  static std::mutex mutex;
  static std::map<int64_t, std::unique_ptr<Codec>> codecs;
  std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Codec>& codec = codecs[num_workers];
  if (!codec) codec.reset(new Codec(num_workers));
  return *codec;
}

int Codec::DigitsPerWord(uint64_t base) {
  return DigitsWithin(base, static_cast<unsigned __int128>(1) << 64, 64);
}

Codec::Codec(int64_t num_workers)
    : num_workers_(num_workers),
      base_(2 * static_cast<uint64_t>(num_workers) + 1),
      digits_(DigitsPerWord(base_)),
      all_zero_(0),
      unpack_digits_(std::min(
          DigitsWithin(base_, kMaxTableEntries, kUnpackStride), digits_)),
      unpack_base_(Power(base_, unpack_digits_)),
      unpack_groups_((digits_ - 1) / unpack_digits_),
      below_top_(Power(base_, digits_ - unpack_digits_)),
      top_(std::max<uint64_t>(below_top_, 2)),
      fraction_shift_(63 - __builtin_clzll(below_top_)) {
  to_fraction_ = static_cast<uint64_t>((static_cast<unsigned __int128>(1)
                                        << 64 << fraction_shift_) /
                                       below_top_) +
                 1;
  for (int first = 0; first < digits_; first += kPackBits) {
    const size_t table = powers_.size();
    powers_.resize(table + kPackEntries, 0);
    for (uint64_t bits = 1; bits < kPackEntries; ++bits) {
      const int digit = first + __builtin_ctzll(bits);
      const uint64_t value = digit < digits_ ? Power(base_, digit) : 0;
      powers_[table + bits] = powers_[table + (bits & (bits - 1))] + value;
    }
  }
  for (int digit = 0; digit < digits_; ++digit) {
    powers_of_base_.push_back(Power(base_, digit));
    all_zero_ += powers_of_base_.back();
  }
  if (num_workers_ <= kMaxByteWorkers) {
    table_.assign(unpack_base_ * kUnpackStride, 0);
    for (uint64_t value = 0; value < unpack_base_; ++value) {
      uint64_t rest = value;
      for (int i = 0; i < unpack_digits_; ++i, rest /= base_) {
        table_[(value + 1) * kUnpackStride - unpack_digits_ + i] =
            static_cast<uint8_t>(rest % base_);
      }
    }
    thirds_ = MakeThirds();
  }
}

Thirds Codec::MakeThirds() const {
  using Wide = unsigned __int128;
  Thirds thirds;
  thirds.third = (digits_ + 2) / 3;
  thirds.base = static_cast<uint32_t>(base_);
  thirds.low = Power(base_, thirds.third);
  thirds.low_two = thirds.low * thirds.low;
  thirds.per_low_two = (1 - 0x1p-50) / static_cast<double>(thirds.low_two);
  // A product with the base fits 32 bits.
  thirds.fraction_bits = __builtin_clz(static_cast<uint32_t>(base_));
  const auto factor = [&](int shift) {
    return (Wide{1} << (thirds.fraction_bits + shift)) / thirds.low + 1;
  };
  int shift = 0;
  while (factor(shift + 1) < (Wide{1} << 32)) ++shift;
  thirds.fraction_shift = shift;
  thirds.to_fraction = static_cast<uint64_t>(factor(shift));
  // What a fraction is too large by is less than 1 + part / 2^shift.
  if ((Wide{thirds.low} + (Wide{1} << shift)) * thirds.low <=
      (Wide{1} << (thirds.fraction_bits + shift))) {
    thirds.digits = digits_;
  }
  return thirds;
}

void Codec::Pack(const uint16_t* plus, const uint16_t* minus, int64_t count,
                 uint64_t* words) const {
  constexpr uint64_t kMask = kPackEntries - 1;
  const uint64_t* const tables_end = powers_.data() + powers_.size();
  const int64_t full_words = count / digits_;
  const int tail = static_cast<int>(count % digits_);
  for (int64_t w = 0; w < full_words; ++w) {
    uint64_t plus_bits = LoadBits(plus, w * digits_);
    uint64_t minus_bits = LoadBits(minus, w * digits_);
    uint64_t word = all_zero_;
    for (const uint64_t* table = powers_.data(); table != tables_end;
         table += kPackEntries) {
      word += table[plus_bits & kMask] - table[minus_bits & kMask];
      plus_bits >>= kPackBits;
      minus_bits >>= kPackBits;
    }
    words[w] = word;
  }
  if (tail != 0) {
    uint64_t word = 0;
    uint64_t power = 1;
    const uint64_t plus_bits = LoadBits(plus, full_words * digits_);
    const uint64_t minus_bits = LoadBits(minus, full_words * digits_);
    for (int i = 0; i < tail; ++i, power *= base_) {
      word += power * (1 + ((plus_bits >> i) & 1) - ((minus_bits >> i) & 1));
    }
    words[full_words] = word;
  }
}

void Codec::PackSums(const int32_t* sums, int64_t count,
                     uint64_t* words) const {
  for (int64_t first = 0; first < count; first += digits_) {
    const int digits =
        static_cast<int>(std::min<int64_t>(digits_, count - first));
    uint64_t word = 0;  // products do not wait for each other
    for (int i = 0; i < digits; ++i) {
      word += static_cast<uint64_t>(sums[first + i]) * powers_of_base_[i];
    }
    *words++ = word;
  }
}

void Codec::Unpack(const uint64_t* words, int64_t num_words,
                   int32_t* sums) const {
  for (int64_t w = 0; w < num_words; ++w) {
    uint64_t rest = words[w];
    for (int i = 0; i < digits_; ++i, rest /= base_) {
      *sums++ = static_cast<int32_t>(rest % base_);
    }
  }
}

void Codec::Unpack(const uint64_t* words, int64_t num_words,
                   uint8_t* sums) const {
  const auto vectors = ActiveKernels().unpack_thirds;
  if (vectors != nullptr && thirds_.digits != 0) {
    vectors(thirds_, words, num_words, sums);
    return;
  }
  // From the last word and the highest digits on: what an entry of the table,
  // or a lowest group of fewer digits, has before its digits is then
  // overwritten.
  for (int64_t w = num_words - 1; w >= 0; --w) {
    uint8_t* end = sums + (w + 1) * digits_;
    const auto write = [&](uint64_t group) {
      std::memcpy(end - kUnpackStride, &table_[group * kUnpackStride],
                  kUnpackStride);
      end -= unpack_digits_;
    };
    // A word that no workers sent must not lead out of the table.
    const uint64_t top = std::min(top_.Divide(words[w]), unpack_base_ - 1);
    write(top);
    // rest / below_top_ in units of 2^-64, too large by less than 3 of them.
    // below_top_ is smaller than 2^64 / 3, so no digit changes.
    const uint64_t rest = words[w] - top * below_top_;
    uint64_t fraction =
        static_cast<uint64_t>(
            (static_cast<unsigned __int128>(to_fraction_) * rest) >>
            fraction_shift_) +
        1;
    for (int g = 0; g < unpack_groups_; ++g) {
      const unsigned __int128 product =
          static_cast<unsigned __int128>(fraction) * unpack_base_;
      write(static_cast<uint64_t>(product >> 64));
      fraction = static_cast<uint64_t>(product);
    }
  }
}

}  // namespace ternary
