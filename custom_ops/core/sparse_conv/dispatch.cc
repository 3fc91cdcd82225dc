// Chooses the kernels, once, by what the machine can do.

#include <cstdlib>
#include <cstring>

#include "custom_ops/core/sparse_conv/kernels.h"

namespace sparse_conv {

const Kernels* FindKernels(const char* name) {
#if defined(__x86_64__)
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && std::strcmp(name, kAvx2Kernels.name) == 0) return &kAvx2Kernels;
  if (avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") &&
      std::strcmp(name, kAvx512Kernels.name) == 0) {
    return &kAvx512Kernels;
  }
#endif
  (void)name;
  return nullptr;
}

const Kernels* ActiveKernels() {
  static const Kernels* const kActive = [] {
    const char* limit = std::getenv("SPARSE_CONV_ISA");
    bool allowed = limit == nullptr || *limit == 0;
    for (const char* name : {"avx512", "avx2"}) {
      allowed = allowed || std::strcmp(limit, name) == 0;
      const Kernels* kernels = allowed ? FindKernels(name) : nullptr;
      if (kernels != nullptr) return kernels;
    }
    return static_cast<const Kernels*>(nullptr);
  }();
  return kActive;
}

}  // namespace sparse_conv

extern "C" const char* sparse_conv_isa(void) {
  const sparse_conv::Kernels* kernels = sparse_conv::ActiveKernels();
  return kernels == nullptr ? "scalar" : kernels->name;
}
