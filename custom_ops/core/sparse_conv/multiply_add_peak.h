// How fast a core multiplies and adds between registers.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_MULTIPLY_ADD_PEAK_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_MULTIPLY_ADD_PEAK_H_

#include <cstdint>

namespace sparse_conv {

// Instructions of `SpinMultiplyAdds` in a turn, none waiting for another.
constexpr int kSpinChains = 12;

// Multiplies and adds vectors of 8 (AVX2) or 16 (AVX-512) lanes, which the
// machine must have, and nothing else.
void SpinMultiplyAdds(int lanes, int64_t turns);

// Whether vectors of 16 lanes are worth two of 8 lanes, as on Zen 5 and on
// Intel's with two wide units, and not one, as on Zen 4. Measured once, in less
// than a millisecond; false without AVX-512.
bool HasWideUnits();

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_MULTIPLY_ADD_PEAK_H_
