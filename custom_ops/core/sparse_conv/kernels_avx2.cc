// AVX2: 16 registers of 8 lanes.

#if defined(__x86_64__)

#include <immintrin.h>

namespace {

struct Simd {
  using Vector = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kMaxVectors1 = 14;
  static constexpr int kMaxVectors2 = 6;
  static constexpr int kMaxVectors4 = 3;

  static Vector Zero() { return _mm256_setzero_ps(); }
  static Vector Set1(float x) { return _mm256_set1_ps(x); }
  static Vector Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static Vector Add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector MulAdd(Vector a, Vector b, Vector c) {
    return _mm256_fmadd_ps(a, b, c);
  }
};

}  // namespace

#include "custom_ops/core/sparse_conv/kernels_inl.h"
#include "custom_ops/core/sparse_conv/transpose_avx2_inl.h"

namespace sparse_conv {

const Kernels kAvx2Kernels = {
    "avx2",
    Simd::kLanes,
    {0, Simd::kMaxVectors1, Simd::kMaxVectors2, 0, Simd::kMaxVectors4},
    SelectList,
    Grad,
    Gather,
    Scatter,
    Fence,
};

}  // namespace sparse_conv

#endif  // defined(__x86_64__)
