// Arithmetic of the CUDA codec, per element, word and group, for host and
// device alike. It gives the bits of kernels_inl.h, codec.h and half.h; the
// host runs it in ternary_cuda_host_test.cc.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_MATH_INL_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_MATH_INL_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/ternary.h"

#if defined(__CUDACC__)
#define TERNARY_HOST_DEVICE __host__ __device__ __forceinline__
// For what is seldom called, from many places.
#define TERNARY_HOST_DEVICE_COLD __host__ __device__ __noinline__
#else
#define TERNARY_HOST_DEVICE inline
#define TERNARY_HOST_DEVICE_COLD inline
#endif
#if defined(__CUDA_ARCH__)
#define TERNARY_UNROLL _Pragma("unroll")
#else
#define TERNARY_UNROLL
#endif

namespace ternary {
namespace cuda {

// --- Bits --------------------------------------------------------------------

// Reinterprets the bytes of a value.
template <typename To, typename From>
TERNARY_HOST_DEVICE To BitCast(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  memcpy(&result, &value, sizeof(result));
  return result;
}

constexpr uint32_t kFloatInfinity = 0x7F800000u;
constexpr uint32_t kFloatNan = 0x7FC00000u;
constexpr uint64_t kDoubleInfinity = 0x7FF0000000000000ull;
constexpr uint64_t kDoubleNan = 0x7FF8000000000000ull;

TERNARY_HOST_DEVICE double Infinity() {
  return BitCast<double>(kDoubleInfinity);
}

TERNARY_HOST_DEVICE bool IsInfinite(double value) {
  return (BitCast<uint64_t>(value) << 1) == (kDoubleInfinity << 1);
}

TERNARY_HOST_DEVICE bool IsFinite(double value) {
  return (BitCast<uint64_t>(value) << 1) < (kDoubleInfinity << 1);
}

TERNARY_HOST_DEVICE bool SignBit(float value) {
  return BitCast<uint32_t>(value) >> 31;
}

TERNARY_HOST_DEVICE bool SignBit(double value) {
  return BitCast<uint64_t>(value) >> 63;
}

TERNARY_HOST_DEVICE int CountBits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// Position of the lowest set bit; `bits` is not 0.
TERNARY_HOST_DEVICE int LowestBit(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// --- 16-bit floats -----------------------------------------------------------

TERNARY_HOST_DEVICE float WidenBfloat16(uint16_t bits) {
  return BitCast<float>(static_cast<uint32_t>(bits) << 16);
}

// A float16's exponent and mantissa are those of a float, but for a bias that
// a product with a power of two puts right, also for subnormals.
TERNARY_HOST_DEVICE float WidenFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(bits & 0x7FFFu) << 13;
  const uint32_t magnitude =
      rest >= (0x1Fu << 23)
          ? rest | kFloatInfinity
          : BitCast<uint32_t>(BitCast<float>(rest) * 0x1p112f);
  return BitCast<float>(sign | magnitude);
}

// double to float, rounding to odd, so that a following rounding to fewer bits
// is as if it had been the only one. Not for NaN.
TERNARY_HOST_DEVICE uint32_t RoundToOddBits(double value) {
  const float nearest = static_cast<float>(value);
  uint32_t bits = BitCast<uint32_t>(nearest);
  if (static_cast<double>(nearest) == value) return bits;
  if (fabs(static_cast<double>(nearest)) > fabs(value)) --bits;
  return bits | 1u;
}

TERNARY_HOST_DEVICE uint16_t NarrowToBfloat16(double value) {
  const uint32_t bits = RoundToOddBits(value);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

TERNARY_HOST_DEVICE uint16_t NarrowToFloat16(double value) {
  const uint32_t bits = RoundToOddBits(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t half;
  if (magnitude >= BitCast<uint32_t>(65520.0f)) {
    half = 0x7C00u;
  } else if (magnitude < BitCast<uint32_t>(0x1p-14f)) {
    // Subnormal: the addition rounds to units of 2^-24, which it leaves in the
    // lowest bits.
    half = BitCast<uint32_t>(BitCast<float>(magnitude) + 0.5f) -
           BitCast<uint32_t>(0.5f);
  } else {
    const uint32_t rebased = magnitude - (112u << 23);
    half = (rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13;
  }
  return sign | static_cast<uint16_t>(half);
}

// --- Elements of the four types ----------------------------------------------

// For each type of gradient: Storage, as it lies in memory; Value, in which the
// CPU codec computes; and the two ways between them. Scaled is sum * ratio
// rounded once, NaN always being the same positive quiet one: what a
// multiplication makes of NaN differs between processors.
template <TernaryDtype dtype>
struct Element;

template <>
struct Element<kTernaryFloat32> {
  using Storage = float;
  using Value = float;
  static TERNARY_HOST_DEVICE float Widen(float stored) { return stored; }
  static TERNARY_HOST_DEVICE float Scaled(int32_t sum, double ratio) {
    const float ratio32 = static_cast<float>(ratio);
    return ratio32 == ratio32 ? static_cast<float>(sum) * ratio32
                              : BitCast<float>(kFloatNan);
  }
};

template <>
struct Element<kTernaryFloat64> {
  using Storage = double;
  using Value = double;
  static TERNARY_HOST_DEVICE double Widen(double stored) { return stored; }
  static TERNARY_HOST_DEVICE double Scaled(int32_t sum, double ratio) {
    return ratio == ratio ? static_cast<double>(static_cast<float>(sum)) * ratio
                          : BitCast<double>(kDoubleNan);
  }
};

template <>
struct Element<kTernaryFloat16> {
  using Storage = uint16_t;
  using Value = float;
  static TERNARY_HOST_DEVICE float Widen(uint16_t stored) {
    return WidenFloat16(stored);
  }
  static TERNARY_HOST_DEVICE uint16_t Scaled(int32_t sum, double ratio) {
    const double value = static_cast<double>(static_cast<float>(sum)) *
                         static_cast<double>(static_cast<float>(ratio));
    return value == value ? NarrowToFloat16(value) : uint16_t{0x7E00};
  }
};

template <>
struct Element<kTernaryBfloat16> {
  using Storage = uint16_t;
  using Value = float;
  static TERNARY_HOST_DEVICE float Widen(uint16_t stored) {
    return WidenBfloat16(stored);
  }
  static TERNARY_HOST_DEVICE uint16_t Scaled(int32_t sum, double ratio) {
    const double value = static_cast<double>(static_cast<float>(sum)) *
                         static_cast<double>(static_cast<float>(ratio));
    return value == value ? NarrowToBfloat16(value) : uint16_t{0x7FC0};
  }
};

// scaler / N, one division; NaN for an infinite scaler.
TERNARY_HOST_DEVICE_COLD double Ratio(double scaler, int64_t num_workers) {
  return IsInfinite(scaler) ? BitCast<double>(kDoubleNan)
                            : scaler / static_cast<double>(num_workers);
}

// Reads `count` consecutive elements, 16 bytes at a time where `is_aligned`.
template <int count, typename Storage>
TERNARY_HOST_DEVICE void Load(const Storage* data, bool is_aligned,
                              Storage* out) {
#if defined(__CUDA_ARCH__)
  constexpr int kBytes = count * static_cast<int>(sizeof(Storage));
  constexpr int kVector = kBytes < 16 ? 8 : 16;
  static_assert(kBytes % kVector == 0, "not a number of whole vectors");
  constexpr int kElements = kVector / static_cast<int>(sizeof(Storage));
  if (is_aligned) {
    TERNARY_UNROLL
    for (int i = 0; i < count; i += kElements) {
      if constexpr (kVector == 16) {
        const uint4 vector = __ldg(reinterpret_cast<const uint4*>(data + i));
        memcpy(out + i, &vector, sizeof(vector));
      } else {
        const uint2 vector = __ldg(reinterpret_cast<const uint2*>(data + i));
        memcpy(out + i, &vector, sizeof(vector));
      }
    }
    return;
  }
#else
  static_cast<void>(is_aligned);
#endif
  TERNARY_UNROLL
  for (int i = 0; i < count; ++i) out[i] = data[i];
}

TERNARY_HOST_DEVICE bool IsAligned(const void* pointer) {
  return (reinterpret_cast<uintptr_t>(pointer) & 15) == 0;
}

// Four bytes of a payload of trits, which is aligned to four.
TERNARY_HOST_DEVICE uint32_t LoadFourBytes(const uint8_t* bytes) {
#if defined(__CUDA_ARCH__)
  return __ldg(reinterpret_cast<const uint32_t*>(bytes));
#else
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
#endif
}

TERNARY_HOST_DEVICE void StoreFourBytes(uint32_t word, uint8_t* bytes) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<uint32_t*>(bytes) = word;
#else
  std::memcpy(bytes, &word, sizeof(word));
#endif
}

// --- Statistics --------------------------------------------------------------

// Magnitudes order like their bits, NaN above infinity.
TERNARY_HOST_DEVICE uint64_t MagnitudeBits(double value) {
  return BitCast<uint64_t>(value) & ~(uint64_t{1} << 63);
}

TERNARY_HOST_DEVICE uint32_t MagnitudeBits(float value) {
  return BitCast<uint32_t>(value) & 0x7FFFFFFFu;
}

// A magnitude as the bits of a double; infinity for all that is not finite.
TERNARY_HOST_DEVICE uint64_t FiniteOrInfinity(uint64_t magnitude) {
  return magnitude < kDoubleInfinity ? magnitude : kDoubleInfinity;
}

TERNARY_HOST_DEVICE uint64_t FiniteOrInfinity(uint32_t magnitude) {
  return magnitude < kFloatInfinity
             ? BitCast<uint64_t>(static_cast<double>(BitCast<float>(magnitude)))
             : kDoubleInfinity;
}

// Of a value >= 0.
TERNARY_HOST_DEVICE float RoundUpToFloat(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value ? BitCast<float>(BitCast<uint32_t>(nearest) + 1)
                         : nearest;
}

// The clip level of a tensor, c * sigma, or infinity where it is not clipped.
TERNARY_HOST_DEVICE double ClipLevel(const Moments& total, int64_t size,
                                     double largest, double clip_factor) {
  constexpr int64_t kMinClippedSize = 32;
  constexpr double kSmallestSpread = 0x1p-20;
  if (clip_factor <= 0.0 || size < kMinClippedSize) return Infinity();
  const double mean = total.sum / static_cast<double>(size);
  const double variance =
      total.sum_squares / static_cast<double>(size) - mean * mean;
  const double sigma = sqrt(variance < 0.0 ? 0.0 : variance);
  return sigma >= largest * kSmallestSpread && IsFinite(sigma)
             ? clip_factor * sigma
             : Infinity();
}

// --- Random decisions --------------------------------------------------------

struct Random128 {
  uint32_t word[4];
};

// philox.h's Philox(Counter(stream, index), key).
TERNARY_HOST_DEVICE Random128 PhiloxAt(const Stream& stream, uint64_t index,
                                       uint64_t key) {
  uint32_t counter0 = static_cast<uint32_t>(index);
  uint32_t counter1 =
      (static_cast<uint32_t>(index >> 32) & 0xFFu) | (stream.rank << 8);
  uint32_t counter2 = (stream.tensor & 0xFFFFFFu) |
                      (static_cast<uint32_t>(stream.step & 0xFFu) << 24);
  uint32_t counter3 = static_cast<uint32_t>(stream.step >> 8);
  uint32_t key0 = static_cast<uint32_t>(key);
  uint32_t key1 = static_cast<uint32_t>(key >> 32);
  TERNARY_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * counter0;
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter2;
    counter0 = static_cast<uint32_t>(product1 >> 32) ^ counter1 ^ key0;
    counter1 = static_cast<uint32_t>(product1);
    counter2 = static_cast<uint32_t>(product0 >> 32) ^ counter3 ^ key1;
    counter3 = static_cast<uint32_t>(product0);
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return {{counter0, counter1, counter2, counter3}};
}

// Byte i of 16, without an index into registers.
TERNARY_HOST_DEVICE uint32_t RandomByte(const Random128& random, int i) {
  const uint32_t low = i & 4 ? random.word[1] : random.word[0];
  const uint32_t high = i & 4 ? random.word[3] : random.word[2];
  return ((i & 8 ? high : low) >> (8 * (i & 3))) & 0xFFu;
}

// Whether an element fires, exactly: u * scaler < magnitude * 2^32, u being a
// random byte and, where that leaves it open, 24 more bits.
TERNARY_HOST_DEVICE bool Fires(double magnitude, double scaler, uint32_t byte,
                               int64_t index, const Stream& stream) {
  const double rest = magnitude * 256.0 - static_cast<double>(byte) * scaler;
  if (!(rest > 0.0)) return false;
  if (rest >= scaler) return true;
  const uint32_t low =
      PhiloxAt(stream, static_cast<uint64_t>(index), stream.seed ^ kTieKey)
          .word[0] >>
      8;
  return static_cast<double>(low) * scaler < rest * 0x1p24;
}

enum Verdict { kRests, kFires, kOpen };

// The same from the byte alone, in float: `per_scaler` is 256 / scaler. Two
// roundings put magnitude * per_scaler wrong by at most 2^-15 where it is below
// 257, so a margin of 2^-14 leaves no decision to them.
TERNARY_HOST_DEVICE Verdict Judge(float magnitude, float per_scaler,
                                  uint32_t byte) {
  constexpr float kMargin = 0x1p-14f;
  // An exact conversion by addition: those by instruction are slower.
  const float threshold = BitCast<float>(0x4B000000u | byte) - 0x1p23f;
  const float excess = magnitude * per_scaler - threshold;
  if (excess < -kMargin) return kRests;
  return excess > 1.0f + kMargin ? kFires : kOpen;
}

// --- Words -------------------------------------------------------------------

// Division by one fixed divisor >= 1, as a multiplication (Granlund and
// Montgomery, "Division by Invariant Integers using Multiplication", PLDI 1994,
// figure 4.1).
struct Divider32 {
  uint32_t divisor;
  uint32_t multiplier;
  int shift1;
  int shift2;

  TERNARY_HOST_DEVICE uint32_t Divide(uint32_t x) const {
    const uint32_t t =
        static_cast<uint32_t>((static_cast<uint64_t>(multiplier) * x) >> 32);
    return (t + ((x - t) >> shift1)) >> shift2;
  }
};

struct Divider64 {
  uint64_t divisor;
  uint64_t multiplier;
  int shift1;
  int shift2;

  TERNARY_HOST_DEVICE uint64_t Divide(uint64_t x) const {
#if defined(__CUDA_ARCH__)
    const uint64_t t = __umul64hi(multiplier, x);
#else
    const uint64_t t = static_cast<uint64_t>(
        (static_cast<unsigned __int128>(multiplier) * x) >> 64);
#endif
    return (t + ((x - t) >> shift1)) >> shift2;
  }
};

// Bits of a plane that one table looks up: entries for all lanes of a warp, and
// never two in one bank but of one address.
constexpr int kPowerBits = 5;
constexpr int kPowerEntries = 1 << kPowerBits;

// The code of num_workers workers.
struct Code {
  int64_t num_workers;
  uint32_t base;
  int digits;                 // of a word
  uint64_t powers_base;       // base^kPowerBits, modulo 2^64
  uint64_t zeros;             // a word whose digits are all 1, the code of 0
  int group_digits;           // digits whose values fit 32 bits
  Divider64 group_divider;    // by base^group_digits
  Divider32 digit_divider;    // by base
  Divider32 element_divider;  // by `digits`
};

// Entry `bits` of the table: the sum of base^j over the set bits j.
TERNARY_HOST_DEVICE uint64_t PowerSum(uint32_t bits, uint32_t base) {
  uint64_t sum = 0;
  for (int j = kPowerBits - 1; j >= 0; --j)
    sum = sum * base + ((bits >> j) & 1);
  return sum;
}

// The word of code.digits elements, the bits of their planes the lowest of
// `plus` and `minus`. `zeros` is a word with digit 1 where there are elements.
TERNARY_HOST_DEVICE uint64_t PackWord(uint64_t plus, uint64_t minus,
                                      uint64_t zeros, const Code& code,
                                      const uint64_t* powers) {
  constexpr uint64_t kMask = kPowerEntries - 1;
  uint64_t word = 0;
  for (int shift = (code.digits - 1) / kPowerBits * kPowerBits; shift >= 0;
       shift -= kPowerBits) {
    word = word * code.powers_base + powers[(plus >> shift) & kMask] -
           powers[(minus >> shift) & kMask];
  }
  return word + zeros;
}

// The word of `count` digits that are sums.
TERNARY_HOST_DEVICE uint64_t PackSums(const int32_t* sums, int count,
                                      uint32_t base) {
  uint64_t word = 0;
  for (int i = count - 1; i >= 0; --i) {
    word = word * base + static_cast<uint64_t>(sums[i]);
  }
  return word;
}

// The digits of a word.
TERNARY_HOST_DEVICE void UnpackWord(uint64_t word, const Code& code,
                                    int32_t* digits) {
  for (int first = 0; first < code.digits; first += code.group_digits) {
    const uint64_t rest = code.group_divider.Divide(word);
    uint32_t group =
        static_cast<uint32_t>(word - rest * code.group_divider.divisor);
    word = rest;
    const int end = first + code.group_digits < code.digits
                        ? first + code.group_digits
                        : code.digits;
    for (int i = first; i < end; ++i) {
      const uint32_t quotient = code.digit_divider.Divide(group);
      digits[i] = static_cast<int32_t>(group - quotient * code.base);
      group = quotient;
    }
  }
}

// --- Trits -------------------------------------------------------------------

constexpr int kTritParts = 5;  // trits of a byte

// Bit b of the lowest four in byte b.
TERNARY_HOST_DEVICE uint32_t SpreadBits(uint32_t bits) {
  return ((bits & 0xFu) * 0x00204081u) & 0x01010101u;
}

// Bytes 4 q ... 4 q + 3 of a group, from its planes of 5 times 32 bits.
TERNARY_HOST_DEVICE uint32_t PackFourBytes(const uint32_t* plus,
                                           const uint32_t* minus, int q) {
  uint32_t bytes = 0;
  TERNARY_UNROLL
  for (int k = kTritParts - 1; k >= 0; --k) {
    bytes = 3 * bytes + 0x01010101u + SpreadBits(plus[k] >> (4 * q)) -
            SpreadBits(minus[k] >> (4 * q));
  }
  return bytes;
}

// Sums, over workers, of the elements of four bytes: sums[4 * k + b] of trit k
// of byte b. `bytes` are those of the first worker, the next ones `stride`
// bytes on.
TERNARY_HOST_DEVICE void SumFourBytes(const uint8_t* bytes, int64_t stride,
                                      int64_t num_workers, int32_t* sums) {
  // Two sums of 16 bits share a register; so many trits fit them.
  constexpr int64_t kMaxWorkers = 0xFFFF / 2;
  constexpr uint32_t kMask = 0x00FF00FFu;
  TERNARY_UNROLL
  for (int i = 0; i < 4 * kTritParts; ++i) sums[i] = 0;
  for (int64_t begin = 0; begin < num_workers; begin += kMaxWorkers) {
    const int64_t end =
        begin + kMaxWorkers < num_workers ? begin + kMaxWorkers : num_workers;
    uint32_t even[kTritParts] = {};  // bytes 0 and 2
    uint32_t odd[kTritParts] = {};   // bytes 1 and 3
    for (int64_t worker = begin; worker < end; ++worker) {
      const uint32_t word = LoadFourBytes(bytes + worker * stride);
      uint32_t even_rest = word & kMask;
      uint32_t odd_rest = (word >> 8) & kMask;
      TERNARY_UNROLL
      for (int k = 0; k < kTritParts; ++k) {
        // Thirds, exact below 2^8.
        const uint32_t even_third = ((even_rest * 171u) >> 9) & 0x007F007Fu;
        const uint32_t odd_third = ((odd_rest * 171u) >> 9) & 0x007F007Fu;
        even[k] += even_rest - 3 * even_third;
        odd[k] += odd_rest - 3 * odd_third;
        even_rest = even_third;
        odd_rest = odd_third;
      }
    }
    TERNARY_UNROLL
    for (int k = 0; k < kTritParts; ++k) {
      sums[4 * k + 0] += static_cast<int32_t>(even[k] & 0xFFFFu);
      sums[4 * k + 1] += static_cast<int32_t>(odd[k] & 0xFFFFu);
      sums[4 * k + 2] += static_cast<int32_t>(even[k] >> 16);
      sums[4 * k + 3] += static_cast<int32_t>(odd[k] >> 16);
    }
  }
}

}  // namespace cuda
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_MATH_INL_H_
