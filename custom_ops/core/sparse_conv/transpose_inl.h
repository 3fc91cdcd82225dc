// 8 x 8 floats with AVX2, for the kernels of both instruction sets.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_INL_H_

#include <immintrin.h>

#include <cstdint>

namespace sparse_conv {
namespace {

// The first `count` lanes.
inline __m256i MaskOf(int count) {
  static const int32_t kOnes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(
      reinterpret_cast<const __m256i*>(kOnes + 8 - count));
}

void Transpose(const float* const* source, int rows, int columns,
               float* const* target, bool relu) {
  const bool whole = rows == 8 && columns == 8;
  __m256 a[8];
  if (whole) {
    for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(source[i]);
  } else {
    const __m256i mask = MaskOf(columns);
    for (int i = 0; i < 8; ++i) {
      a[i] =
          i < rows ? _mm256_maskload_ps(source[i], mask) : _mm256_setzero_ps();
    }
  }
  if (relu) {
    // The second operand is returned where one is NaN.
    const __m256 zero = _mm256_setzero_ps();
    for (int i = 0; i < 8; ++i) a[i] = _mm256_max_ps(zero, a[i]);
  }
  __m256 b[8];
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    b[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
  if (whole) {
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(target[i], b[i]);
  } else {
    const __m256i mask = MaskOf(rows);
    for (int i = 0; i < columns; ++i) {
      _mm256_maskstore_ps(target[i], mask, b[i]);
    }
  }
}

void Stream(const float* source, int64_t count, float* target) {
  int64_t i = 0;
  for (; i < count && reinterpret_cast<uintptr_t>(target + i) % 32 != 0; ++i) {
    target[i] = source[i];
  }
  for (; i + 8 <= count; i += 8) {
    _mm256_stream_ps(target + i, _mm256_loadu_ps(source + i));
  }
  for (; i < count; ++i) target[i] = source[i];
}

void Fence() { _mm_sfence(); }

}  // namespace
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_TRANSPOSE_INL_H_
