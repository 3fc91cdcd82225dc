// Chooses the kernels, once, by what the machine can do.

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/ternary.h"

namespace ternary {
namespace {

// The kernels of that name, or null if this machine cannot run them.
const Kernels* Find(const char* name) {
#if defined(__x86_64__)
  if (std::strcmp(name, kAvx2Kernels.name) == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("f16c")
               ? &kAvx2Kernels
               : nullptr;
  }
  if (std::strcmp(name, kAvx512Kernels.name) == 0) {
    return __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? &kAvx512Kernels
               : nullptr;
  }
#endif
  return std::strcmp(name, kScalarKernels.name) == 0 ? &kScalarKernels
                                                     : nullptr;
}

const Kernels* Choose() {
  if (const char* name = std::getenv("TERNARY_ISA")) {
    if (const Kernels* kernels = Find(name)) return kernels;
  }
  for (const char* name : {"avx512", "avx2"}) {
    if (const Kernels* kernels = Find(name)) return kernels;
  }
  return &kScalarKernels;
}

std::atomic<const Kernels*>& Active() {
  static std::atomic<const Kernels*> active{Choose()};
  return active;
}

}  // namespace

const Kernels& ActiveKernels() { return *Active().load(); }

void SetActiveKernels(const Kernels& kernels) { Active() = &kernels; }

}  // namespace ternary

extern "C" const char* ternary_isa(void) {
  return ternary::ActiveKernels().name;
}

extern "C" int ternary_set_isa(const char* name) {
  const ternary::Kernels* kernels = ternary::Find(name);
  if (kernels == nullptr) return 0;
  ternary::Active() = kernels;
  return 1;
}
