// AVX2 kernels. Only ternarizing is written by hand: the compiler vectorizes
// the rest.

#if defined(__x86_64__)

#include <immintrin.h>

#include <cmath>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/kernels_inl.h"

namespace ternary {
namespace {

// Four Philox counters, one per 64-bit lane. Only the low half of a lane
// counts: multiplication ignores the high half.
struct Philox4x4 {
  __m256i word[4];
};

inline Philox4x4 Counters(const Stream& stream, uint64_t block) {
  const Philox4 first = Counter(stream, block);
  const Philox4 last = Counter(stream, block + 3);
  Philox4x4 c;
  c.word[0] = _mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(block)),
                               _mm256_set_epi64x(3, 2, 1, 0));
  // The low word may carry into the next within the four.
  c.word[1] = first[1] == last[1]
                  ? _mm256_set1_epi64x(first[1])
                  : _mm256_set_epi64x(last[1], Counter(stream, block + 2)[1],
                                      Counter(stream, block + 1)[1], first[1]);
  c.word[2] = _mm256_set1_epi64x(first[2]);
  c.word[3] = _mm256_set1_epi64x(first[3]);
  return c;
}

inline void PhiloxRound(Philox4x4* c, uint32_t key0, uint32_t key1) {
  const __m256i m0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i m1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  const __m256i product0 = _mm256_mul_epu32(c->word[0], m0);
  const __m256i product1 = _mm256_mul_epu32(c->word[2], m1);
  const __m256i keyed1 = _mm256_xor_si256(c->word[1], _mm256_set1_epi64x(key0));
  const __m256i keyed3 = _mm256_xor_si256(c->word[3], _mm256_set1_epi64x(key1));
  c->word[0] = _mm256_xor_si256(_mm256_srli_epi64(product1, 32), keyed1);
  c->word[1] = product1;
  c->word[2] = _mm256_xor_si256(_mm256_srli_epi64(product0, 32), keyed3);
  c->word[3] = product0;
}

// 64 bytes in element order.
inline void StoreBytes(const Philox4x4& c, uint8_t* bytes) {
  const __m256i words01 =
      _mm256_blend_epi32(c.word[0], _mm256_slli_epi64(c.word[1], 32), 0xAA);
  const __m256i words23 =
      _mm256_blend_epi32(c.word[2], _mm256_slli_epi64(c.word[3], 32), 0xAA);
  const __m256i blocks02 = _mm256_unpacklo_epi64(words01, words23);
  const __m256i blocks13 = _mm256_unpackhi_epi64(words01, words23);
  __m256i* out = reinterpret_cast<__m256i*>(bytes);
  _mm256_store_si256(out, _mm256_permute2x128_si256(blocks02, blocks13, 0x20));
  _mm256_store_si256(out + 1,
                     _mm256_permute2x128_si256(blocks02, blocks13, 0x31));
}

// Groups of four counters that are computed together: a round is a chain of
// five instructions, two groups hide each other's latency.
constexpr int kGroups = 2;
constexpr int64_t kStep = 4 * kPhiloxBlock * kGroups;

// kStep random bytes of consecutive blocks, in element order.
inline void RandomBytes(const Stream& stream, uint64_t block, uint8_t* bytes) {
  Philox4x4 c[kGroups];
  for (int g = 0; g < kGroups; ++g) c[g] = Counters(stream, block + 4 * g);
  uint32_t key0 = static_cast<uint32_t>(stream.seed);
  uint32_t key1 = static_cast<uint32_t>(stream.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int g = 0; g < kGroups; ++g) PhiloxRound(&c[g], key0, key1);
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  for (int g = 0; g < kGroups; ++g) StoreBytes(c[g], bytes + 64 * g);
}

// 256 * |g| / scaler in float is off by less than this (below 256: two
// roundings of 2^-24 each), so outside the margin one byte decides.
constexpr float kMargin = 0x1p-13f;

Counts TernarizeAvx2(const Run<float>& run, uint16_t* plus, uint16_t* minus) {
  Counts counts;
  // Up to the next Philox block one by one.
  const int64_t misaligned = run.first % kPhiloxBlock;
  const int64_t head = misaligned == 0 ? 0
                                       : (run.count < kPhiloxBlock - misaligned
                                              ? run.count
                                              : kPhiloxBlock - misaligned);
  TernarizeElements(run, 0, head, plus, minus, &counts);

  const __m256 magnitude_mask =
      _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  const __m256 clip_level = _mm256_set1_ps(run.clip_level);
  const __m256 inverse = _mm256_set1_ps(256.0f / run.scaler);
  const __m256 certain_offset = _mm256_set1_ps(-1.0f - kMargin);
  const __m256 margin = _mm256_set1_ps(kMargin);
  alignas(32) uint8_t bytes[kStep];
  int64_t i = head;
  for (; i + kStep <= run.count; i += kStep) {
    RandomBytes(*run.stream,
                static_cast<uint64_t>(run.first + i) / kPhiloxBlock, bytes);
    for (int64_t first = 0; first < kStep; first += 64) {
      uint64_t fires = 0;
      uint64_t open = 0;
      uint64_t signs = 0;
      uint64_t clipped = 0;
      for (int j = 0; j < 64; j += 8) {
        const __m256 value = _mm256_loadu_ps(run.data + i + first + j);
        const __m256 magnitude = _mm256_and_ps(value, magnitude_mask);
        const __m256 over = _mm256_cmp_ps(magnitude, clip_level, _CMP_GT_OQ);
        const __m256 level =
            _mm256_mul_ps(_mm256_min_ps(magnitude, clip_level), inverse);
        const __m256 byte =
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(
                reinterpret_cast<const __m128i*>(bytes + first + j))));
        const __m256 certain = _mm256_cmp_ps(
            byte, _mm256_add_ps(level, certain_offset), _CMP_LE_OQ);
        const __m256 possible =
            _mm256_cmp_ps(byte, _mm256_add_ps(level, margin), _CMP_LT_OQ);
        const auto bits = [j](__m256 mask) {
          return static_cast<uint64_t>(
                     static_cast<uint32_t>(_mm256_movemask_ps(mask)))
                 << j;
        };
        fires |= bits(certain);
        open |= bits(_mm256_andnot_ps(certain, possible));
        signs |= bits(value);
        clipped |= bits(over);
      }
      for (; open != 0; open &= open - 1) {
        const int64_t j = first + __builtin_ctzll(open);
        float magnitude = std::fabs(run.data[i + j]);
        if (magnitude > run.clip_level) magnitude = run.clip_level;
        if (FiresOnTie(magnitude, run.scaler, bytes[j], run.first + i + j,
                       *run.stream)) {
          fires |= uint64_t{1} << (j - first);
        }
      }
      counts.nonzero += __builtin_popcountll(fires);
      counts.clipped += __builtin_popcountll(clipped);
      const uint64_t plus_bits = fires & ~signs;
      const uint64_t minus_bits = fires & signs;
      // Bit 0 of the planes is the first bit of a Philox block, so this is a
      // multiple of 16.
      const int64_t entry = (run.first_bit + i + first) / 16;
      std::memcpy(plus + entry, &plus_bits, 8);
      std::memcpy(minus + entry, &minus_bits, 8);
    }
  }
  TernarizeElements(run, i, run.count, plus, minus, &counts);
  return counts;
}

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2",
    BlockMoments<float>,
    BlockMoments<double>,
    AbsMax<float, uint32_t>,
    AbsMax<double, uint64_t>,
    TernarizeAvx2,
    Ternarize<double>,
    Scale,
    PackTrits,
    AddTrits,
    ScaleU8,
};

}  // namespace ternary

#endif  // __x86_64__
