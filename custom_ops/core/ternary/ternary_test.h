// What the files of ternary_test share.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_TEST_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_TEST_H_

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "custom_ops/core/ternary/kernels.h"

// Prints the first failure and exits with 1.
#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                       \
    }                                                                     \
  } while (false)

namespace ternary {

// The AVX-512 kernels by emulation; null where that is not built.
const Kernels* EmulatedAvx512Kernels();

// All sets that run here but the scalar one.
std::vector<const Kernels*> OtherKernels();

// Every kernel of every set gives the bits of the scalar one.
void TestKernels();

}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_TEST_H_
