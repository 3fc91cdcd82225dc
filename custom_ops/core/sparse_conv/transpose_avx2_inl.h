// 8 rows of floats to columns and back, with AVX2. Stores of parts go through
// memory: masked ones take dozens of cycles on AMD.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX2_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX2_INL_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sparse_conv {
namespace {

// a[r] lane c becomes a[c] lane r.
inline void Transpose8(__m256* a) {
  __m256 b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    b[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = b[i];
}

// The first `count` lanes.
inline __m256i MaskOf(int64_t count) {
  static const int32_t kOnes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(
      reinterpret_cast<const __m256i*>(kOnes + 8 - count));
}

void Gather(const float* const* rows, int count, int64_t columns, float* target,
            int64_t stride) {
  for (int64_t c = 0; c < columns; c += 8) {
    const int64_t width = columns - c < 8 ? columns - c : 8;
    __m256 a[8];
    if (width == 8 && count == 8) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(rows[i] + c);
      // What the next vector of pixels reads, if memory has to bring it.
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(rows[i] + c + 8 * columns),
                     _MM_HINT_T1);
      }
      Transpose8(a);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        _mm256_storeu_ps(target + (c + i) * stride, a[i]);
      }
      continue;
    }
    const __m256i mask = MaskOf(width);
    for (int i = 0; i < 8; ++i) {
      a[i] = i < count ? _mm256_maskload_ps(rows[i] + c, mask)
                       : _mm256_setzero_ps();
    }
    Transpose8(a);
    for (int i = 0; i < width; ++i) {
      float* const to = target + (c + i) * stride;
      if (count == 8) {
        _mm256_storeu_ps(to, a[i]);
      } else {
        alignas(32) float part[8];
        _mm256_store_ps(part, a[i]);
        std::memcpy(to, part, count * sizeof(float));
      }
    }
  }
}

void Scatter(const float* source, int64_t stride, int64_t columns,
             float* const* rows, bool relu, bool past_cache) {
  // The second operand is returned where one is NaN.
  const __m256 least = _mm256_set1_ps(relu ? 0.0f : -__builtin_inff());
  for (int64_t c = 0; c < columns; c += 8) {
    const int64_t width = columns - c < 8 ? columns - c : 8;
    __m256 a[8];
    for (int i = 0; i < 8; ++i) {
      a[i] = i < width ? _mm256_loadu_ps(source + (c + i) * stride)
                       : _mm256_setzero_ps();
      a[i] = _mm256_max_ps(least, a[i]);
    }
    Transpose8(a);
    for (int i = 0; i < 8; ++i) {
      if (rows[i] == nullptr) continue;
      float* const to = rows[i] + c;
      if (width < 8) {
        alignas(32) float part[8];
        _mm256_store_ps(part, a[i]);
        std::memcpy(to, part, width * sizeof(float));
      } else if (past_cache && reinterpret_cast<uintptr_t>(to) % 32 == 0) {
        _mm256_stream_ps(to, a[i]);
      } else {
        _mm256_storeu_ps(to, a[i]);
      }
    }
  }
}

void Fence() { _mm_sfence(); }

}  // namespace
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_AVX2_INL_H_
