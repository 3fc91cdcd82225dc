// AVX-512: 32 registers of 16 lanes.

#if defined(__x86_64__)

#include <immintrin.h>

namespace {

struct Simd {
  using Vector = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kMaxVectors1 = 28;
  static constexpr int kMaxVectors2 = 13;
  static constexpr int kMaxVectors4 = 6;

  static Vector Zero() { return _mm512_setzero_ps(); }
  static Vector Set1(float x) { return _mm512_set1_ps(x); }
  static Vector Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static Vector Add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector MulAdd(Vector a, Vector b, Vector c) {
    return _mm512_fmadd_ps(a, b, c);
  }
};

}  // namespace

#include "custom_ops/core/sparse_conv/kernels_inl.h"
#include "custom_ops/core/sparse_conv/transpose_avx512_inl.h"

namespace sparse_conv {

const Kernels kAvx512Kernels = {
    "avx512",
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
