// Digits of base 2N + 1 in 64-bit words.

#ifndef CUSTOM_OPS_CORE_TERNARY_CODEC_H_
#define CUSTOM_OPS_CORE_TERNARY_CODEC_H_

#include <cstdint>
#include <vector>

#include "custom_ops/core/ternary/kernels.h"

namespace ternary {

// With more workers sums of digits do not fit a byte.
constexpr int64_t kMaxByteWorkers = 127;

// Division of any 64-bit number by one fixed divisor >= 2, as a multiplication
// (Granlund and Montgomery, "Division by Invariant Integers using
// Multiplication", PLDI 1994, figure 4.1).
class Divider {
 public:
  explicit Divider(uint64_t divisor);
  uint64_t Divide(uint64_t x) const {
    const uint64_t t = static_cast<uint64_t>(
        (static_cast<unsigned __int128>(multiplier_) * x) >> 64);
    return (t + ((x - t) >> 1)) >> shift_;
  }

 private:
  uint64_t multiplier_;
  int shift_;
};

// The code of num_workers workers. Immutable; ForWorkers caches one per N.
class Codec {
 public:
  static const Codec& ForWorkers(int64_t num_workers);

  static int DigitsPerWord(uint64_t base);

  int64_t num_workers() const { return num_workers_; }
  int digits() const { return digits_; }
  int64_t NumWords(int64_t size) const {
    return (size + digits_ - 1) / digits_;
  }

  // Bit planes of `count` elements (bit i of a plane in bit i % 16 of entry
  // i / 16) to words. Reads 8 bytes past the last full byte of a plane.
  void Pack(const uint16_t* plus, const uint16_t* minus, int64_t count,
            uint64_t* words) const;

  // Sums of digits, each in [0, 2N], to words.
  void PackSums(const int32_t* sums, int64_t count, uint64_t* words) const;

  // Words to their digits, num_words * digits() of them, each in [0, 2N].
  void Unpack(const uint64_t* words, int64_t num_words, int32_t* sums) const;
  // The same in bytes, for N <= kMaxByteWorkers. Writes up to kDigitSlack bytes
  // more on both sides.
  void Unpack(const uint64_t* words, int64_t num_words, uint8_t* sums) const;

 private:
  explicit Codec(int64_t num_workers);

  static constexpr int kPackBits = 9;  // index bits of a pack table
  static constexpr uint64_t kPackEntries = uint64_t{1} << kPackBits;
  static constexpr int kUnpackStride = 4;  // bytes of an unpack table entry

  Thirds MakeThirds() const;

  int64_t num_workers_;
  uint64_t base_;
  int digits_;
  std::vector<uint64_t> powers_of_base_;  // [digits_]
  uint64_t all_zero_;  // a word whose digits are all 1, the code of 0
  // Entry [t][bits] = sum of base^(kPackBits * t + j) over the set bits j.
  std::vector<uint64_t> powers_;
  // A word is split into groups of unpack_digits_ digits, values below
  // unpack_base_. top_ divides by everything below the highest group; what
  // remains is made a fraction, whose integer part after each multiplication
  // by unpack_base_ is the next group.
  int unpack_digits_;
  uint64_t unpack_base_;
  int unpack_groups_;     // below the highest
  uint64_t below_top_;    // base^(digits - unpack_digits_)
  Divider top_;           // by below_top_
  uint64_t to_fraction_;  // 2^(64 + fraction_shift_) / below_top_
  int fraction_shift_;
  // [unpack_base_][kUnpackStride], the digits last
  std::vector<uint8_t> table_;
  Thirds thirds_;
};

}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_CODEC_H_
