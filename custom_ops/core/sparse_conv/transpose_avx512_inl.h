// 16 rows of floats to columns and back, with AVX-512.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX512_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX512_INL_H_

#include <immintrin.h>

#include <cstdint>

namespace sparse_conv {
namespace {

// a[r] lane c becomes a[c] lane r.
inline void Transpose16(__m512* a) {
  __m512 b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  // Now a[4 g + k] has in its quarter q columns 4 q + k of rows 4 g.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    b[k] = _mm512_shuffle_f32x4(a[k], a[4 + k], 0x88);
    b[4 + k] = _mm512_shuffle_f32x4(a[k], a[4 + k], 0xdd);
    b[8 + k] = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0x88);
    b[12 + k] = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0xdd);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    a[k] = _mm512_shuffle_f32x4(b[k], b[8 + k], 0x88);
    a[8 + k] = _mm512_shuffle_f32x4(b[k], b[8 + k], 0xdd);
    a[4 + k] = _mm512_shuffle_f32x4(b[4 + k], b[12 + k], 0x88);
    a[12 + k] = _mm512_shuffle_f32x4(b[4 + k], b[12 + k], 0xdd);
  }
}

inline __mmask16 MaskOf(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}

void Gather(const float* const* rows, int count, int64_t columns, float* target,
            int64_t stride) {
  for (int64_t c = 0; c < columns; c += 16) {
    const int64_t width = columns - c < 16 ? columns - c : 16;
    __m512 a[16];
    if (width == 16 && count == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(rows[i] + c);
      // What the next vector of pixels reads, if memory has to bring it.
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(rows[i] + c + 16 * columns),
                     _MM_HINT_T1);
      }
      Transpose16(a);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        _mm512_storeu_ps(target + (c + i) * stride, a[i]);
      }
      continue;
    }
    const __mmask16 mask = MaskOf(width);
    for (int i = 0; i < 16; ++i) {
      a[i] = i < count ? _mm512_maskz_loadu_ps(mask, rows[i] + c)
                       : _mm512_setzero_ps();
    }
    Transpose16(a);
    for (int i = 0; i < width; ++i) {
      _mm512_mask_storeu_ps(target + (c + i) * stride, MaskOf(count), a[i]);
    }
  }
}

void Scatter(const float* source, int64_t stride, int64_t columns,
             float* const* rows, bool relu, bool past_cache) {
  // The second operand is returned where one is NaN.
  const __m512 least = _mm512_set1_ps(relu ? 0.0f : -__builtin_inff());
  for (int64_t c = 0; c < columns; c += 16) {
    const int64_t width = columns - c < 16 ? columns - c : 16;
    __m512 a[16];
    if (width == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        a[i] = _mm512_max_ps(least, _mm512_loadu_ps(source + (c + i) * stride));
      }
      Transpose16(a);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (rows[i] == nullptr) continue;
        float* const to = rows[i] + c;
        if (past_cache && reinterpret_cast<uintptr_t>(to) % 64 == 0) {
          _mm512_stream_ps(to, a[i]);
        } else {
          _mm512_storeu_ps(to, a[i]);
        }
      }
      continue;
    }
    for (int i = 0; i < 16; ++i) {
      a[i] = i < width ? _mm512_max_ps(
                             least, _mm512_loadu_ps(source + (c + i) * stride))
                       : _mm512_setzero_ps();
    }
    Transpose16(a);
    for (int i = 0; i < 16; ++i) {
      if (rows[i] != nullptr) {
        _mm512_mask_storeu_ps(rows[i] + c, MaskOf(width), a[i]);
      }
    }
  }
}

void Fence() { _mm_sfence(); }

}  // namespace
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX512_INL_H_
