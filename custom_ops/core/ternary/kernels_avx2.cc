// AVX2 kernels. What is not here the compiler vectorizes.

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/kernels_inl.h"
#include "custom_ops/core/ternary/kernels_simd_inl.h"

namespace ternary {
namespace {

// The vectors' element type on both sides, whatever the intrinsic wants.
inline __m256i Load(const void* data) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(data));
}
inline void Store(__m256i value, void* data) {
  _mm256_storeu_si256(static_cast<__m256i*>(data), value);
}

struct Avx2 {
  using Vector = __m256i;
  static constexpr int kLanes = 4;
  static constexpr int kGroups = 3;

  static Vector Broadcast(uint64_t x) {
    return _mm256_set1_epi64x(static_cast<int64_t>(x));
  }
  static Vector Load(const uint64_t* data) { return ternary::Load(data); }
  static void Store(Vector value, uint64_t* data) {
    ternary::Store(value, data);
  }
  static Vector LowWords(uint32_t first) {
    return _mm256_add_epi64(Broadcast(first), _mm256_set_epi64x(3, 1, 2, 0));
  }
  static Vector Multiply(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
  static Vector High(Vector a) { return _mm256_srli_epi64(a, 32); }
  static Vector Xor(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
  // The keyed word does not wait for the product.
  static Vector Xor3(Vector product, Vector word, Vector key) {
    return Xor(product, Xor(word, key));
  }

  static void StoreBytes(const Vector* words, uint8_t* bytes) {
    const Vector words01 =
        _mm256_blend_epi32(words[0], _mm256_slli_epi64(words[1], 32), 0xAA);
    const Vector words23 =
        _mm256_blend_epi32(words[2], _mm256_slli_epi64(words[3], 32), 0xAA);
    ternary::Store(_mm256_unpacklo_epi64(words01, words23), bytes);
    ternary::Store(_mm256_unpackhi_epi64(words01, words23), bytes + 32);
  }

  // Elements 0-3 and 16-19: packing works on halves of a vector, and so gives
  // the elements back in order.
  static __m256 LoadHalves(const float* data) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(data)),
                                _mm_loadu_ps(data + 16), 1);
  }

  static uint32_t Bits(Vector bytes) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
  }

  struct Masks32 {
    uint64_t certain;
    uint64_t open;
    uint64_t negative;
  };

  static Masks32 Compare32(const float* data, const uint8_t* bytes,
                           const Levels& levels, Vector* clipped) {
    const __m256 magnitude_mask =
        _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    const __m256 clip_level = _mm256_set1_ps(levels.clip_level);
    const __m256 factor = _mm256_set1_ps(levels.factor);
    const __m256 limit = _mm256_set1_ps(levels.limit);
    Vector level32[4];
    Vector raw[4];
    for (int j = 0; j < 4; ++j) {
      const __m256 value = LoadHalves(data + 4 * j);
      const __m256 magnitude = _mm256_and_ps(value, magnitude_mask);
      const __m256 over = _mm256_cmp_ps(magnitude, clip_level, _CMP_GT_OQ);
      *clipped = _mm256_sub_epi32(*clipped, _mm256_castps_si256(over));
      level32[j] = _mm256_cvttps_epi32(
          _mm256_min_ps(_mm256_mul_ps(magnitude, factor), limit));
      raw[j] = _mm256_castps_si256(value);
    }
    const Vector one = _mm256_set1_epi16(1);
    Vector low[2];
    Vector high[2];
    for (int j = 0; j < 2; ++j) {
      const Vector level =
          _mm256_packus_epi32(level32[2 * j], level32[2 * j + 1]);
      low[j] = _mm256_srli_epi16(level, 8);
      high[j] = _mm256_srli_epi16(_mm256_adds_epu16(level, one), 8);
    }
    const Vector random = ternary::Load(bytes);
    const Vector first_open = _mm256_packus_epi16(low[0], low[1]);
    const Vector last_open = _mm256_packus_epi16(high[0], high[1]);
    const Vector not_certain =
        _mm256_cmpeq_epi8(_mm256_max_epu8(random, first_open), random);
    const Vector possible =
        _mm256_cmpeq_epi8(_mm256_min_epu8(random, last_open), random);
    // Signed packing keeps the signs.
    const Vector signs = _mm256_packs_epi16(_mm256_packs_epi32(raw[0], raw[1]),
                                            _mm256_packs_epi32(raw[2], raw[3]));
    return {~Bits(not_certain), Bits(_mm256_and_si256(not_certain, possible)),
            Bits(signs)};
  }

  static Masks Compare(const float* data, const uint8_t* bytes,
                       const Levels& levels, Vector* clipped) {
    const Masks32 a = Compare32(data, bytes, levels, clipped);
    const Masks32 b = Compare32(data + 32, bytes + 32, levels, clipped);
    return {a.certain | b.certain << 32, a.open | b.open << 32,
            a.negative | b.negative << 32};
  }
};

Statistics StatisticsAvx2(const float* data, int64_t count) {
  const __m256i magnitude_mask = _mm256_set1_epi32(0x7FFFFFFF);
  __m256d sums[4] = {};
  __m256d squares[4] = {};
  __m256i largest[2] = {};
  const int64_t full = count - count % kLanes;
  for (int64_t i = 0; i < full; i += kLanes) {
    for (int j = 0; j < 4; ++j) {
      const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(data + i + 4 * j));
      sums[j] = _mm256_add_pd(sums[j], value);
      // The square of a float is exact in double, so that fusing changes
      // nothing.
      squares[j] = _mm256_fmadd_pd(value, value, squares[j]);
    }
    for (int j = 0; j < 2; ++j) {
      largest[j] = _mm256_max_epi32(
          largest[j], _mm256_and_si256(Load(data + i + 8 * j), magnitude_mask));
    }
  }
  double sum[kLanes];
  double sum_squares[kLanes];
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_pd(sum + 4 * j, sums[j]);
    _mm256_storeu_pd(sum_squares + 4 * j, squares[j]);
  }
  AddTail(data, full, count, sum, sum_squares);
  uint32_t lanes[8];
  Store(_mm256_max_epi32(largest[0], largest[1]), lanes);
  const double abs_max = FiniteOrInfinity<float>(
      *std::max_element(std::begin(lanes), std::end(lanes)));
  return {
      CombineLanes(sum, sum_squares),
      std::max(abs_max, AbsMax<float, uint32_t>(data + full, count - full))};
}

void WidenF16Avx2(const uint16_t* data, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(
                                  reinterpret_cast<const __m128i*>(data + i))));
  }
  WidenF16(data + i, count - i, out + i);
}

// 32 bits to 32 bytes, each 0 or -1.
inline __m256i ExpandBits(const void* bits) {
  int32_t word;
  std::memcpy(&word, bits, sizeof(word));
  const __m256i byte_of = _mm256_set_epi64x(
      0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
  const __m256i bit_of =
      _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), byte_of);
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of), bit_of);
}

void PackTritsAvx2(const uint16_t* plus, const uint16_t* minus, int64_t groups,
                   uint8_t* bytes) {
  for (int64_t g = 0; g < groups; ++g) {
    __m256i code = _mm256_setzero_si256();
    for (int k = kGroupParts - 1; k >= 0; --k) {
      const __m256i minus_bytes = ExpandBits(minus + 10 * g + 2 * k);
      const __m256i plus_bytes = ExpandBits(plus + 10 * g + 2 * k);
      code = _mm256_add_epi8(_mm256_add_epi8(code, code), code);
      code = _mm256_add_epi8(code, _mm256_sub_epi8(minus_bytes, plus_bytes));
    }
    Store(_mm256_add_epi8(code, _mm256_set1_epi8(kZeroTrits)),
          bytes + kGroupBytes * g);
  }
}

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2",
    StatisticsAvx2,
    BlockStatistics<double, uint64_t>,
    AbsMax<float, uint32_t>,
    AbsMax<double, uint64_t>,
    TernarizeVectors<Avx2>,
    Ternarize<double>,
    WidenF16Avx2,
    WidenBf16,
    PackTritsAvx2,
    AddTrits,
    nullptr,
    ScaleU8Vectors,
};

}  // namespace ternary

#endif  // __x86_64__
