#include "custom_ops/core/sparse_conv/multiply_add_peak.h"

#include <algorithm>
#include <chrono>

#include "custom_ops/core/sparse_conv/kernels.h"

namespace sparse_conv {
namespace {

#if defined(__x86_64__)
// kSpinChains of them; `vector`: "ymm" or "zmm".
#define MULTIPLY_ADDS(vector)                                               \
  asm volatile(                                                             \
      ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n"                      \
      "vfmadd231ps %%" vector "12, %%" vector "12, %%" vector               \
      "\\n\n"                                                               \
      ".endr\n" ::                                                          \
          : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
            "xmm8", "xmm9", "xmm10", "xmm11", "xmm12")

__attribute__((target("avx2,fma"))) void Spin8(int64_t turns) {
  for (int64_t t = 0; t < turns; ++t) MULTIPLY_ADDS("ymm");
}

__attribute__((target("avx512f"))) void Spin16(int64_t turns) {
  for (int64_t t = 0; t < turns; ++t) MULTIPLY_ADDS("zmm");
}
#undef MULTIPLY_ADDS
#endif

double Seconds(int lanes) {
  const auto start = std::chrono::steady_clock::now();
  SpinMultiplyAdds(lanes, 10000);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

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
}

}  // namespace sparse_conv
