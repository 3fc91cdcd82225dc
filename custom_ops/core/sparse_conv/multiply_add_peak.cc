#include "custom_ops/core/sparse_conv/multiply_add_peak.h"

#include <algorithm>
#include <chrono>

#include "custom_ops/core/sparse_conv/kernels.h"

namespace sparse_conv {
namespace {

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void Spin8(int64_t turns) {
  for (int64_t t = 0; t < turns; ++t) {
    asm volatile(
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm0\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm1\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm2\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm3\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm4\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm5\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm6\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm7\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm8\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm9\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm10\n"
        "vfmadd231ps %%ymm12, %%ymm12, %%ymm11\n" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
              "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");
  }
}

__attribute__((target("avx512f"))) void Spin16(int64_t turns) {
  for (int64_t t = 0; t < turns; ++t) {
    asm volatile(
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm0\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm1\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm2\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm3\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm4\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm5\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm6\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm7\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm8\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm9\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm10\n"
        "vfmadd231ps %%zmm12, %%zmm12, %%zmm11\n" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
              "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");
  }
}

double Seconds(int lanes) {
  const auto start = std::chrono::steady_clock::now();
  SpinMultiplyAdds(lanes, 10000);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}
#endif

}  // namespace

void SpinMultiplyAdds(int lanes, int64_t turns) {
#if defined(__x86_64__)
  lanes == 16 ? Spin16(turns) : Spin8(turns);
#else
  (void)lanes;
  (void)turns;
#endif
}

bool HasWideUnits() {
#if defined(__x86_64__)
  static const bool kWide = [] {
    if (FindKernels("avx512") == nullptr) return false;
    double narrow = 1, wide = 1;
    // The shortest of some, in turn: other programs only take time away.
    for (int i = 0; i < 9; ++i) {
      narrow = std::min(narrow, Seconds(8));
      wide = std::min(wide, Seconds(16));
    }
    return 2 * narrow > 1.5 * wide;
  }();
  return kWide;
#else
  return false;
#endif
}

}  // namespace sparse_conv
