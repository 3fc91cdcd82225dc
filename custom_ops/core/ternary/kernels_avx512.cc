// AVX-512 kernels: those of kernels_avx2.cc in vectors of 512 bits, with masks.
// Where the machine has no AVX-512, emulated_avx512_test.cc runs them.

#if defined(__x86_64__)

#if !defined(TERNARY_EMULATE_AVX512)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <iterator>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/kernels_inl.h"
#include "custom_ops/core/ternary/kernels_simd_inl.h"

namespace ternary {
namespace {

struct Avx512 {
  using Vector = __m512i;
  static constexpr int kLanes = 8;
  static constexpr int kGroups = 3;

  static Vector Broadcast(uint64_t x) {
    return _mm512_set1_epi64(static_cast<int64_t>(x));
  }
  static Vector Load(const uint64_t* data) { return _mm512_loadu_si512(data); }
  static void Store(Vector value, void* data) {
    _mm512_storeu_si512(data, value);
  }
  static Vector LowWords(uint32_t first) {
    return _mm512_add_epi64(Broadcast(first),
                            _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0));
  }
  static Vector Multiply(Vector a, Vector b) { return _mm512_mul_epu32(a, b); }
  static Vector High(Vector a) { return _mm512_srli_epi64(a, 32); }
  static Vector Xor(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
  static Vector Xor3(Vector a, Vector b, Vector c) {
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
  }

  static void StoreBytes(const Vector* words, uint8_t* bytes) {
    const Vector words01 = _mm512_mask_blend_epi32(
        0xAAAA, words[0], _mm512_slli_epi64(words[1], 32));
    const Vector words23 = _mm512_mask_blend_epi32(
        0xAAAA, words[2], _mm512_slli_epi64(words[3], 32));
    Store(_mm512_unpacklo_epi64(words01, words23), bytes);
    Store(_mm512_unpackhi_epi64(words01, words23), bytes + 64);
  }

  // Packing works on quarters of a vector: this puts the elements in order.
  static Vector InOrder(Vector packed) {
    return _mm512_permutexvar_epi32(
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0),
        packed);
  }

  static Masks Compare(const float* data, const uint8_t* bytes,
                       const Levels& levels, Vector* clipped) {
    const __m512 clip_level = _mm512_set1_ps(levels.clip_level);
    const __m512 factor = _mm512_set1_ps(levels.factor);
    const __m512 limit = _mm512_set1_ps(levels.limit);
    const Vector minus_one = _mm512_set1_epi32(-1);
    Vector level32[4];
    __mmask16 negative[4];
    for (int j = 0; j < 4; ++j) {
      const __m512 value = _mm512_loadu_ps(data + 16 * j);
      const __m512 magnitude = _mm512_abs_ps(value);
      const __mmask16 over =
          _mm512_cmp_ps_mask(magnitude, clip_level, _CMP_GT_OQ);
      *clipped = _mm512_mask_sub_epi32(*clipped, over, *clipped, minus_one);
      level32[j] = _mm512_cvttps_epi32(
          _mm512_min_ps(_mm512_mul_ps(magnitude, factor), limit));
      negative[j] = _mm512_movepi32_mask(_mm512_castps_si512(value));
    }
    const Vector one = _mm512_set1_epi16(1);
    Vector low[2];
    Vector high[2];
    for (int j = 0; j < 2; ++j) {
      const Vector level =
          _mm512_packus_epi32(level32[2 * j], level32[2 * j + 1]);
      low[j] = _mm512_srli_epi16(level, 8);
      high[j] = _mm512_srli_epi16(_mm512_adds_epu16(level, one), 8);
    }
    const Vector random = _mm512_loadu_si512(bytes);
    const uint64_t certain = _mm512_cmplt_epu8_mask(
        random, InOrder(_mm512_packus_epi16(low[0], low[1])));
    const uint64_t possible = _mm512_cmple_epu8_mask(
        random, InOrder(_mm512_packus_epi16(high[0], high[1])));
    return {certain, certain ^ possible,
            _mm512_kunpackd(_mm512_kunpackw(negative[3], negative[2]),
                            _mm512_kunpackw(negative[1], negative[0]))};
  }
};

Statistics StatisticsAvx512(const float* data, int64_t count) {
  const __m512i magnitude_mask = _mm512_set1_epi32(0x7FFFFFFF);
  __m512d sums[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  __m512d squares[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  __m512i largest = _mm512_setzero_si512();
  const int64_t full = count - count % kLanes;
  for (int64_t i = 0; i < full; i += kLanes) {
    for (int j = 0; j < 2; ++j) {
      const __m512d value = _mm512_cvtps_pd(_mm256_loadu_ps(data + i + 8 * j));
      sums[j] = _mm512_add_pd(sums[j], value);
      // The square of a float is exact in double, so that fusing changes
      // nothing.
      squares[j] = _mm512_fmadd_pd(value, value, squares[j]);
    }
    largest = _mm512_max_epi32(
        largest,
        _mm512_and_si512(_mm512_loadu_si512(data + i), magnitude_mask));
  }
  double sum[kLanes];
  double sum_squares[kLanes];
  for (int j = 0; j < 2; ++j) {
    _mm512_storeu_pd(sum + 8 * j, sums[j]);
    _mm512_storeu_pd(sum_squares + 8 * j, squares[j]);
  }
  AddTail(data, full, count, sum, sum_squares);
  uint32_t lanes[16];
  _mm512_storeu_si512(lanes, largest);
  const double abs_max = FiniteOrInfinity<float>(
      *std::max_element(std::begin(lanes), std::end(lanes)));
  return {
      CombineLanes(sum, sum_squares),
      std::max(abs_max, AbsMax<float, uint32_t>(data + full, count - full))};
}

void WidenF16Avx512(const uint16_t* data, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(
                                  reinterpret_cast<const __m256i*>(data + i))));
  }
  WidenF16(data + i, count - i, out + i);
}

inline uint32_t LoadMask(const void* bits) {
  uint32_t mask;
  std::memcpy(&mask, bits, sizeof(mask));
  return mask;
}

void PackTritsAvx512(const uint16_t* plus, const uint16_t* minus,
                     int64_t groups, uint8_t* bytes) {
  const __m256i one = _mm256_set1_epi8(1);
  for (int64_t g = 0; g < groups; ++g) {
    __m256i code = _mm256_setzero_si256();
    for (int k = kGroupParts - 1; k >= 0; --k) {
      code = _mm256_add_epi8(_mm256_add_epi8(code, code), code);
      code = _mm256_mask_add_epi8(code, LoadMask(plus + 10 * g + 2 * k), code,
                                  one);
      code = _mm256_mask_sub_epi8(code, LoadMask(minus + 10 * g + 2 * k), code,
                                  one);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + kGroupBytes * g),
                        _mm256_add_epi8(code, _mm256_set1_epi8(kZeroTrits)));
  }
}

// The three parts of eight words as fractions, see Thirds; the lowest first.
inline void SplitInThirds(const Thirds& thirds, const uint64_t* words,
                          __m512i* fractions) {
  const __m512i low = Avx512::Broadcast(thirds.low);
  const __m512i low_two = Avx512::Broadcast(thirds.low_two);
  const __m512i word = _mm512_loadu_si512(words);
  // The quotient or one less.
  __m512i part2 = _mm512_cvttpd_epu64(_mm512_mul_pd(
      _mm512_cvtepu64_pd(word), _mm512_set1_pd(thirds.per_low_two)));
  __m512i rest = _mm512_sub_epi64(word, _mm512_mullo_epi64(part2, low_two));
  const __mmask8 is_less = _mm512_cmpge_epu64_mask(rest, low_two);
  part2 = _mm512_mask_add_epi64(part2, is_less, part2, Avx512::Broadcast(1));
  rest = _mm512_mask_sub_epi64(rest, is_less, rest, low_two);
  // The half keeps the roundings away from the next integer.
  const __m512i part1 = _mm512_cvttpd_epi64(_mm512_mul_pd(
      _mm512_add_pd(_mm512_cvtepu64_pd(rest), _mm512_set1_pd(0.5)),
      _mm512_set1_pd(1.0 / static_cast<double>(thirds.low))));
  const __m512i part0 = _mm512_sub_epi64(rest, _mm512_mul_epu32(part1, low));
  const __m512i parts[3] = {part0, part1, part2};
  for (int p = 0; p < 3; ++p) {
    fractions[p] = _mm512_add_epi64(
        _mm512_srl_epi64(
            _mm512_mul_epu32(parts[p], Avx512::Broadcast(thirds.to_fraction)),
            _mm_cvtsi32_si128(thirds.fraction_shift)),
        Avx512::Broadcast(1));
  }
}

// Digits of kUnpackWords words; 16 bytes of each part, in turn.
inline void UnpackWords(const Thirds& thirds, const uint64_t* words,
                        uint8_t* sums) {
  __m512i halves[2][3];
  SplitInThirds(thirds, words, halves[0]);
  SplitInThirds(thirds, words + 8, halves[1]);
  // 32-bit lane 2 w is of word w, lane 2 w + 1 of word 8 + w.
  __m512i fractions[3];
  for (int p = 0; p < 3; ++p) {
    fractions[p] =
        _mm512_or_si512(halves[0][p], _mm512_slli_epi64(halves[1][p], 32));
  }
  const __m512i base = _mm512_set1_epi32(static_cast<int>(thirds.base));
  const __m128i shift = _mm_cvtsi32_si128(thirds.fraction_bits);
  const __m512i fraction_mask =
      _mm512_set1_epi32((uint32_t{1} << thirds.fraction_bits) - 1);
  // Four digits in a lane, the highest ones first.
  __m512i digits[3][4] = {};
  for (int d = thirds.third - 1; d >= 0; --d) {
    for (int p = 0; p < 3; ++p) {
      const __m512i product = _mm512_mullo_epi32(fractions[p], base);
      fractions[p] = _mm512_and_si512(product, fraction_mask);
      digits[p][d / 4] = _mm512_or_si512(_mm512_slli_epi32(digits[p][d / 4], 8),
                                         _mm512_srl_epi32(product, shift));
    }
  }
  // Rows [part][lane % 4][lane / 4] of 16 digits.
  alignas(64) uint8_t rows[3][4][4][16];
  for (int p = 0; p < 3; ++p) {
    const __m512i* const d = digits[p];
    const __m512i low01 = _mm512_unpacklo_epi32(d[0], d[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(d[2], d[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(d[0], d[1]);
    const __m512i high23 = _mm512_unpackhi_epi32(d[2], d[3]);
    Avx512::Store(_mm512_unpacklo_epi64(low01, low23), rows[p][0]);
    Avx512::Store(_mm512_unpackhi_epi64(low01, low23), rows[p][1]);
    Avx512::Store(_mm512_unpacklo_epi64(high01, high23), rows[p][2]);
    Avx512::Store(_mm512_unpackhi_epi64(high01, high23), rows[p][3]);
  }
  // What a row has behind its digits is overwritten by the next one.
  for (int w = 0; w < kUnpackWords; ++w) {
    const int lane = w < 8 ? 2 * w : 2 * (w - 8) + 1;
    for (int p = 0; p < 3; ++p) {
      std::memcpy(sums + w * thirds.digits + p * thirds.third,
                  rows[p][lane % 4][lane / 4], 16);
    }
  }
}

void UnpackThirdsAvx512(const Thirds& thirds, const uint64_t* words,
                        int64_t num_words, uint8_t* sums) {
  static_assert(kDigitSlack >= 16, "a row");
  int64_t w = 0;
  for (; w + kUnpackWords <= num_words; w += kUnpackWords) {
    UnpackWords(thirds, words + w, sums + w * thirds.digits);
  }
  if (w < num_words) {
    uint64_t rest[kUnpackWords] = {};
    std::copy(words + w, words + num_words, rest);
    uint8_t buffer[kUnpackWords * 40 + 16];  // of the most digits, base 3
    UnpackWords(thirds, rest, buffer);
    std::copy_n(buffer, (num_words - w) * thirds.digits,
                sums + w * thirds.digits);
  }
}

}  // namespace

const Kernels kAvx512Kernels = {
    "avx512",
    StatisticsAvx512,
    BlockStatistics<double, uint64_t>,
    AbsMax<float, uint32_t>,
    AbsMax<double, uint64_t>,
    TernarizeVectors<Avx512>,
    Ternarize<double>,
    WidenF16Avx512,
    WidenBf16,
    PackTritsAvx512,
    AddTrits,
    UnpackThirdsAvx512,
    ScaleU8Vectors,
};

}  // namespace ternary

#endif  // __x86_64__
