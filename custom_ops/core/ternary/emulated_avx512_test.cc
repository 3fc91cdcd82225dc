// The AVX-512 kernels by emulation, part of ternary_test: SIMDe, if its headers
// are there (Debian: libsimde-dev).

#include "custom_ops/core/ternary/kernels.h"

#if defined(__x86_64__) && __has_include(<simde/x86/avx512.h>)

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

// What SIMDe 0.7 lacks, from halves.

template <typename Half, typename Whole, typename In, typename Function>
static Whole FromHalves(In in, const Function& function) {
  struct {
    Half half[2];
  } parts = {{function(in, 0), function(in, 1)}};
  Whole whole;
  static_assert(sizeof(whole) == sizeof(parts), "two halves");
  __builtin_memcpy(&whole, &parts, sizeof(whole));
  return whole;
}

template <typename Half, typename Whole>
static Half HalfOf(const Whole& whole, int i) {
  Half half;
  __builtin_memcpy(&half, reinterpret_cast<const Half*>(&whole) + i,
                   sizeof(half));
  return half;
}

static __m512i Cvttps512(__m512 a) {
  return FromHalves<__m256i, __m512i>(a, [](const __m512& whole, int i) {
    return simde_mm256_cvttps_epi32(HalfOf<__m256>(whole, i));
  });
}
static __m512 Cvtepi32Ps512(__m512i a) {
  return FromHalves<__m256, __m512>(a, [](const __m512i& whole, int i) {
    return simde_mm256_cvtepi32_ps(HalfOf<__m256i>(whole, i));
  });
}
static __m512d CvtpsPd512(__m256 a) {
  return FromHalves<__m256d, __m512d>(a, [](const __m256& whole, int i) {
    return simde_mm256_cvtps_pd(HalfOf<__m128>(whole, i));
  });
}
static __m512 CvtphPs512(__m256i a) {
  return FromHalves<__m256, __m512>(a, [](const __m256i& whole, int i) {
    return simde_mm256_cvtph_ps(HalfOf<__m128i>(whole, i));
  });
}
static __m512i Cvtepu8Epi32512(__m128i a) {
  return FromHalves<__m256i, __m512i>(a, [](const __m128i& whole, int i) {
    return simde_mm256_cvtepu8_epi32(i == 0 ? whole
                                            : simde_mm_srli_si128(whole, 8));
  });
}

// Lane by lane.
template <typename To, typename From, typename Whole, typename In>
static Whole ConvertLanes(const In& in) {
  From from[8];
  To to[8];
  __builtin_memcpy(from, &in, sizeof(from));
  for (int i = 0; i < 8; ++i) to[i] = static_cast<To>(from[i]);
  Whole whole;
  static_assert(sizeof(whole) == sizeof(to) && sizeof(in) == sizeof(from),
                "eight lanes");
  __builtin_memcpy(&whole, to, sizeof(whole));
  return whole;
}
// SIMDe multiplies signed numbers, which may overflow.
template <typename Lane>
static __m512i MultiplyLow(const __m512i& a, const __m512i& b) {
  constexpr int kLanes = sizeof(a) / sizeof(Lane);
  Lane x[kLanes];
  Lane y[kLanes];
  __builtin_memcpy(x, &a, sizeof(a));
  __builtin_memcpy(y, &b, sizeof(b));
  for (int i = 0; i < kLanes; ++i) x[i] *= y[i];
  __m512i product;
  __builtin_memcpy(&product, x, sizeof(product));
  return product;
}
using __mmask8 = simde__mmask8;
using __mmask16 = simde__mmask16;
static uint64_t Join(uint64_t high, uint64_t low, int bits) {
  return high << bits | low;
}
#undef _mm512_mullo_epi32
#undef _mm512_mullo_epi64
#define _mm512_mullo_epi32 MultiplyLow<uint32_t>
#define _mm512_mullo_epi64 MultiplyLow<uint64_t>
#define _mm512_cvtepu64_pd ConvertLanes<double, uint64_t, __m512d, __m512i>
#define _mm512_cvttpd_epu64 ConvertLanes<uint64_t, double, __m512i, __m512d>
#define _mm512_cvttpd_epi64 ConvertLanes<int64_t, double, __m512i, __m512d>
#define _mm512_kunpackw(high, low) Join(high, low, 16)
#define _mm512_kunpackd(high, low) Join(high, low, 32)
#define _mm512_cvttps_epi32 Cvttps512
#define _mm512_cvtepi32_ps Cvtepi32Ps512
#define _mm512_cvtps_pd CvtpsPd512
#define _mm512_cvtph_ps CvtphPs512
#define _mm512_cvtepu8_epi32 Cvtepu8Epi32512
#define _mm256_mask_add_epi8(src, mask, a, b) \
  simde_mm256_mask_blend_epi8(mask, src, simde_mm256_add_epi8(a, b))
#define _mm256_mask_sub_epi8(src, mask, a, b) \
  simde_mm256_mask_blend_epi8(mask, src, simde_mm256_sub_epi8(a, b))

#define TERNARY_EMULATE_AVX512
#define kAvx512Kernels kEmulatedAvx512Kernels
namespace ternary {
extern const Kernels kAvx512Kernels;
}  // namespace ternary
#include "custom_ops/core/ternary/kernels_avx512.cc"

namespace ternary {
const Kernels* EmulatedAvx512Kernels() { return &kEmulatedAvx512Kernels; }
}  // namespace ternary

#else

namespace ternary {
const Kernels* EmulatedAvx512Kernels() { return nullptr; }
}  // namespace ternary

#endif
