// What the AVX2 and the AVX-512 kernels share. Isa names the instructions:
//
//   Vector           kLanes 64-bit lanes
//   Broadcast(x)     x in every lane
//   LowWords(first)  first, first + 1, ... in the order that StoreBytes wants
//   Multiply(a, b)   products of the low halves
//   High(a)          the high half of each lane
//   Xor(a, b), Xor3(a, b, c)
//   StoreBytes(words, bytes)  16 bytes of each lane's counter, in element order
//   Compare          64 elements at once, see TernarizePiece
//
// In an anonymous namespace like kernels_inl.h: no two sets share a symbol.

#ifndef CUSTOM_OPS_CORE_TERNARY_KERNELS_SIMD_INL_H_
#define CUSTOM_OPS_CORE_TERNARY_KERNELS_SIMD_INL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/kernels_inl.h"
#include "custom_ops/core/ternary/philox.h"

namespace ternary {
namespace {

// Philox of counters that differ in their low word only. Only the low half of
// a 64-bit lane counts, as multiplication ignores the high half. Most of the
// first two rounds does not depend on the low word and is done once.
template <typename Isa>
class Philoxes {
 public:
  using Vector = typename Isa::Vector;

  Philoxes(const Stream& stream, uint64_t key, uint64_t index) {
    const Philox4 counter = Counter(stream, index);
    uint32_t key0 = static_cast<uint32_t>(key);
    uint32_t key1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      keys_[round][0] = key0;
      keys_[round][1] = key1;
      key0 += kPhiloxWeyl0;
      key1 += kPhiloxWeyl1;
    }
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter[2];
    const uint64_t word0 = (product1 >> 32) ^ counter[1] ^ keys_[0][0];
    const uint64_t product0 =
        kPhiloxMultiplier0 *
        static_cast<uint64_t>(static_cast<uint32_t>(word0));
    first_xor2_ = counter[3] ^ keys_[0][1];
    second_xor0_ = static_cast<uint32_t>(product1) ^ keys_[1][0];
    second_xor2_ = (product0 >> 32) ^ keys_[1][1];
    second_word3_ = static_cast<uint32_t>(product0);
  }

  // c[g][0] are the low words; all four words on return. Groups hide each
  // other's latency.
  template <int kGroups>
  void Compute(Vector (*c)[4]) const {
    const Vector m0 = Isa::Broadcast(kPhiloxMultiplier0);
    const Vector m1 = Isa::Broadcast(kPhiloxMultiplier1);
    for (int g = 0; g < kGroups; ++g) {
      const Vector product0 = Isa::Multiply(c[g][0], m0);
      const Vector word2 =
          Isa::Xor(Isa::High(product0), Isa::Broadcast(first_xor2_));
      const Vector product1 = Isa::Multiply(word2, m1);
      c[g][0] = Isa::Xor(Isa::High(product1), Isa::Broadcast(second_xor0_));
      c[g][1] = product1;
      c[g][2] = Isa::Xor(product0, Isa::Broadcast(second_xor2_));
      c[g][3] = Isa::Broadcast(second_word3_);
    }
    for (int round = 2; round < kPhiloxRounds; ++round) {
      const Vector key0 = Isa::Broadcast(keys_[round][0]);
      const Vector key1 = Isa::Broadcast(keys_[round][1]);
      for (int g = 0; g < kGroups; ++g) {
        const Vector product0 = Isa::Multiply(c[g][0], m0);
        const Vector product1 = Isa::Multiply(c[g][2], m1);
        c[g][0] = Isa::Xor3(Isa::High(product1), c[g][1], key0);
        c[g][1] = product1;
        c[g][2] = Isa::Xor3(Isa::High(product0), c[g][3], key1);
        c[g][3] = product0;
      }
    }
  }

 private:
  uint64_t keys_[kPhiloxRounds][2];
  uint64_t first_xor2_;   // what word 2 is combined with in the first round
  uint64_t second_xor0_;  // likewise in the second
  uint64_t second_xor2_;
  uint64_t second_word3_;  // word 3 after the second round
};

// Elements of one Isa::Compare.
constexpr int kStep = 64;
// Elements whose random bytes are made at a time, between comparisons: short,
// so that memory does not idle meanwhile.
constexpr int kBurst = 384;
// Elements whose ties are collected at a time.
constexpr int kPiece = 22 * kBurst;
// How far ahead elements are fetched.
constexpr int kAhead = 1024;

// Random bytes of at least `count` elements, the first of which begins a
// Philox block. Writes whole groups: up to kBurst bytes.
template <typename Isa>
void RandomBytes(const Philoxes<Isa>& philoxes, int64_t block, int count,
                 uint8_t* bytes) {
  constexpr int kGroups = Isa::kGroups;
  constexpr int kGroupBytes = kPhiloxBlock * Isa::kLanes;
  static_assert(kBurst % (kGroups * kGroupBytes) == 0, "whole groups");
  for (int i = 0; i < count; i += kGroups * kGroupBytes) {
    typename Isa::Vector c[kGroups][4];
    for (int g = 0; g < kGroups; ++g) {
      c[g][0] = Isa::LowWords(static_cast<uint32_t>(block) + i / kPhiloxBlock +
                              Isa::kLanes * g);
    }
    philoxes.template Compute<kGroups>(c);
    for (int g = 0; g < kGroups; ++g) {
      Isa::StoreBytes(c[g], bytes + i + g * kGroupBytes);
    }
  }
}

// Elements of a piece whose random byte leaves open whether they fire.
struct Ties {
  int count = 0;
  uint16_t position[kPiece + kStep];

  void Add(int first, uint64_t open) {
    // Without a branch where there is one or none, the usual cases.
    position[count] = first + __builtin_ctzll(open | (uint64_t{1} << 63));
    count += open != 0;
    for (open &= open - 1; open != 0; open &= open - 1) {
      position[count++] = first + __builtin_ctzll(open);
    }
  }
};

// Decides ties; returns how many fire. `first` is the piece's in the run.
template <typename Isa>
int64_t ResolveTies(const Run<float>& run, const Philoxes<Isa>& philoxes,
                    int64_t first, const uint8_t* bytes, Ties* ties,
                    uint16_t* plus, uint16_t* minus) {
  constexpr int kLanes = Isa::kLanes;
  // Fill up the last vector; what it says of these lanes is not read.
  for (int i = 0; i < kLanes; ++i) ties->position[ties->count + i] = 0;
  const double scaler = run.scaler;
  int64_t nonzero = 0;
  for (int t = 0; t < ties->count; t += kLanes) {
    const uint16_t* position = ties->position + t;
    alignas(64) uint64_t random[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      random[i] = static_cast<uint64_t>(run.first + first + position[i]);
    }
    typename Isa::Vector c[1][4] = {{Isa::Load(random)}};
    philoxes.template Compute<1>(c);
    Isa::Store(c[0][0], random);
    const int lanes = std::min(kLanes, ties->count - t);
    for (int i = 0; i < lanes; ++i) {
      const int64_t element = first + position[i];
      const double magnitude =
          std::min(std::fabs(run.data[element]), run.clip_level);
      const bool fires = Fires(magnitude, scaler, bytes[position[i]],
                               static_cast<uint32_t>(random[i]) >> 8);
      const int64_t bit = run.first_bit + element;
      uint16_t* plane = std::signbit(run.data[element]) ? minus : plus;
      plane[bit / 16] |= static_cast<uint16_t>(fires << (bit % 16));
      nonzero += fires;
    }
  }
  return nonzero;
}

// 65536 * |g| / scaler as an integer v, by a float multiplication. The factor
// is too small by more than the roundings can make up for, and v + 1 is too
// large: with x = 256 * |g| / scaler, v <= 256 * x < v + 2. So bytes below
// v >> 8 fire, bytes above (v + 1) >> 8 do not, and the rest are ties.
struct Levels {
  explicit Levels(const Run<float>& run)
      : factor(static_cast<float>(0x1p16 * (1.0 - 0x1p-20) / run.scaler)),
        limit(std::min(run.clip_level * factor, 65535.0f)),
        clip_level(run.clip_level) {}
  float factor;
  float limit;  // of v
  float clip_level;
};

// Isa::Compare(data, bytes, levels, &clipped) compares kStep elements with
// their random bytes; bit i of a mask is element i. `clipped` is counted in
// the lanes of Isa::Vector, 32 bits each.
struct Masks {
  uint64_t certain;
  uint64_t open;
  uint64_t negative;
};

// Fetches kStep elements, kAhead from here. They may lie beyond the run:
// fetching cannot fault, and the next run is often there.
inline void Prefetch(const float* data) {
  const uintptr_t ahead =
      reinterpret_cast<uintptr_t>(data) + kAhead * sizeof(float);
  for (int line = 0; line < kStep * 4; line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(ahead + line));
  }
}

// Compares `count` elements, at most kBurst, and sets their bits. `first` is
// where they begin in the piece.
template <typename Isa>
void CompareBurst(const float* data, const uint8_t* bytes, int first, int count,
                  const Levels& levels, uint16_t* plus, uint16_t* minus,
                  Ties* ties, typename Isa::Vector* clipped, int64_t* nonzero) {
  typename Isa::Vector over = *clipped;  // in a register
  int64_t fired = 0;
  int i = 0;
  for (; i + kStep <= count; i += kStep) {
    Prefetch(data + i);
    const Masks masks = Isa::Compare(data + i, bytes + i, levels, &over);
    const uint64_t minus_bits = masks.certain & masks.negative;
    const uint64_t plus_bits = masks.certain ^ minus_bits;
    std::memcpy(plus + i / 16, &plus_bits, 8);
    std::memcpy(minus + i / 16, &minus_bits, 8);
    fired += __builtin_popcountll(masks.certain);
    ties->Add(first + i, masks.open);
  }
  if (const int rest = count - i; rest > 0) {
    float padded[kStep] = {};
    std::copy_n(data + i, rest, padded);
    Masks masks = Isa::Compare(padded, bytes + i, levels, &over);
    const uint64_t valid = (uint64_t{1} << rest) - 1;
    masks.certain &= valid;
    for (int j = 0; j < rest; j += 16) {
      plus[(i + j) / 16] |=
          static_cast<uint16_t>((masks.certain & ~masks.negative) >> j);
      minus[(i + j) / 16] |=
          static_cast<uint16_t>((masks.certain & masks.negative) >> j);
    }
    fired += __builtin_popcountll(masks.certain);
    ties->Add(first + i, masks.open & valid);
  }
  *clipped = over;
  *nonzero += fired;
}

template <typename Isa>
Counts TernarizeVectors(const Run<float>& run, uint16_t* plus,
                        uint16_t* minus) {
  Counts counts;
  // Up to the next Philox block one by one.
  const int64_t head = std::min(run.count, -run.first & (kPhiloxBlock - 1));
  TernarizeElements(run, 0, head, plus, minus, &counts);
  const uint64_t high_word = static_cast<uint64_t>(run.first) >> 32;
  if (run.count - head < kStep / 2 ||
      high_word != static_cast<uint64_t>(run.first + run.count) >> 32) {
    TernarizeElements(run, head, run.count, plus, minus, &counts);
    return counts;
  }

  const Philoxes<Isa> block_philoxes(
      *run.stream, run.stream->seed,
      static_cast<uint64_t>(run.first) / kPhiloxBlock);
  const Philoxes<Isa> tie_philoxes(*run.stream, run.stream->seed ^ kTieKey,
                                   static_cast<uint64_t>(run.first));
  const Levels levels(run);
  typename Isa::Vector clipped = Isa::Broadcast(0);
  alignas(64) uint8_t bytes[kPiece];
  for (int64_t first = head; first < run.count; first += kPiece) {
    const int count =
        static_cast<int>(std::min<int64_t>(kPiece, run.count - first));
    Ties ties;
    for (int i = 0; i < count; i += kBurst) {
      const int burst = std::min(kBurst, count - i);
      RandomBytes(block_philoxes, (run.first + first + i) / kPhiloxBlock, burst,
                  bytes + i);
      // Bit 0 of the planes is the first bit of a Philox block, so this is a
      // multiple of 16.
      const int64_t entry = (run.first_bit + first + i) / 16;
      CompareBurst<Isa>(run.data + first + i, bytes + i, i, burst, levels,
                        plus + entry, minus + entry, &ties, &clipped,
                        &counts.nonzero);
    }
    counts.nonzero +=
        ResolveTies(run, tie_philoxes, first, bytes, &ties, plus, minus);
  }
  alignas(64) uint64_t lanes[Isa::kLanes];
  Isa::Store(clipped, lanes);
  for (const uint64_t lane : lanes) {
    counts.clipped += static_cast<uint32_t>(lane) + (lane >> 32);
  }
  return counts;
}

// Writes vector(i), elements i to i + 7, for the i that it returns: whole
// vectors from `first` on.
template <typename MakeVector>
int64_t StoreVectors(int64_t first, int64_t count, bool past_cache, float* out,
                     const MakeVector& vector) {
  int64_t i = first;
  if (past_cache) {
    for (; i + 8 <= count; i += 8) _mm256_stream_ps(out + i, vector(i));
    _mm_sfence();  // other threads see these writes before later ones
  } else {
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, vector(i));
  }
  return i;
}

// Elements before the first aligned vector, if that matters.
inline int64_t Unaligned(const float* out, int64_t count, bool past_cache) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(out) / sizeof(float);
  const int64_t before = static_cast<int64_t>((8 - address % 8) % 8);
  return past_cache ? std::min(before, count) : 0;
}

inline void ScaleU8Vectors(const uint8_t* sums, int64_t count, int32_t offset,
                           float ratio, bool past_cache, float* out) {
  const __m256i offsets = _mm256_set1_epi32(offset);
  const __m256 ratios = _mm256_set1_ps(ratio);
  const int64_t first = Unaligned(out, count, past_cache);
  ScaleU8(sums, first, offset, ratio, false, out);
  const int64_t i = StoreVectors(first, count, past_cache, out, [&](int64_t i) {
    const __m256i sum = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(sums + i)));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offsets)),
                         ratios);
  });
  ScaleU8(sums + i, count - i, offset, ratio, false, out + i);
}

}  // namespace
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_KERNELS_SIMD_INL_H_
