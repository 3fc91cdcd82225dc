// 16-bit floats as storage: float16 (IEEE binary16) and bfloat16.

#ifndef CUSTOM_OPS_CORE_TERNARY_HALF_H_
#define CUSTOM_OPS_CORE_TERNARY_HALF_H_

#include <cmath>
#include <cstdint>
#include <cstring>

namespace ternary {

inline uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float FromBfloat16(uint16_t bits) {
  return FloatFromBits(static_cast<uint32_t>(bits) << 16);
}

inline float FromFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1Fu;
  const uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) {
    return FloatFromBits(sign | 0x7F800000u | (mantissa << 13));
  }
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  return FloatFromBits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// double to float, rounding to odd: a following rounding to fewer bits is then
// as if it had been the only one (Boldo and Melquiond, "Emulation of FMA and
// Correctly Rounded Sums", 2008).
inline float RoundToOdd(double value) {
  const float nearest = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(nearest) == value) {
    return nearest;
  }
  uint32_t bits = FloatBits(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;
  return FloatFromBits(bits | 1u);
}

inline uint16_t ToBfloat16(double value) {
  const uint32_t bits = FloatBits(RoundToOdd(value));
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

inline uint16_t ToFloat16(double value) {
  const float odd = RoundToOdd(value);
  const uint32_t bits = FloatBits(odd);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(odd);
  if (std::isnan(odd)) return sign | 0x7E00u;
  if (magnitude >= 65520.0f) return sign | 0x7C00u;
  if (magnitude < 0x1p-14f) {  // subnormal: units of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f));
  }
  const uint32_t rebased = (bits & 0x7FFFFFFFu) - (112u << 23);
  return sign | static_cast<uint16_t>(
                    (rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13);
}

}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_HALF_H_
