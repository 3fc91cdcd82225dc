// Portable kernels, compiled once per instruction set (in an anonymous
// namespace: the compiler may vectorize them for that set, and never has to
// merge two versions of one symbol).

#ifndef CUSTOM_OPS_CORE_TERNARY_KERNELS_INL_H_
#define CUSTOM_OPS_CORE_TERNARY_KERNELS_INL_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "custom_ops/core/ternary/half.h"
#include "custom_ops/core/ternary/kernels.h"

namespace ternary {
namespace {

constexpr int kLanes = 16;

inline Moments CombineLanes(const double* sum, const double* sum_squares) {
  Moments moments = {0.0, 0.0};
  for (int lane = 0; lane < kLanes; ++lane) {
    moments.sum += sum[lane];
    moments.sum_squares += sum_squares[lane];
  }
  return moments;
}

// Elements [first, count), fewer than kLanes, into their lanes.
template <typename T>
inline void AddTail(const T* data, int64_t first, int64_t count, double* sum,
                    double* sum_squares) {
  for (int64_t i = first; i < count; ++i) {
    const double value = data[i];
    sum[i - first] += value;
    sum_squares[i - first] += value * value;
  }
}

template <typename T>
Moments BlockMoments(const T* data, int64_t count) {
  double sum[kLanes] = {};
  double sum_squares[kLanes] = {};
  const int64_t full = count - count % kLanes;
  for (int64_t i = 0; i < full; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = data[i + lane];
      sum[lane] += value;
      sum_squares[lane] += value * value;
    }
  }
  AddTail(data, full, count, sum, sum_squares);
  return CombineLanes(sum, sum_squares);
}

template <typename T, typename Bits>
double FiniteOrInfinity(Bits bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(value));
  return std::isfinite(value) ? static_cast<double>(value)
                              : std::numeric_limits<double>::infinity();
}

// Magnitudes of floats order like their bits, NaN above infinity: an integer
// maximum cannot lose a NaN.
template <typename T, typename Bits>
double AbsMax(const T* data, int64_t count) {
  constexpr Bits kMagnitude = std::numeric_limits<Bits>::max() >> 1;
  Bits largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i, sizeof(bits));
    bits &= kMagnitude;
    largest = bits > largest ? bits : largest;
  }
  return FiniteOrInfinity<T>(largest);
}

template <typename T, typename Bits>
Statistics BlockStatistics(const T* data, int64_t count) {
  return {BlockMoments(data, count), AbsMax<T, Bits>(data, count)};
}

inline int RandomByte(const Philox4& words, int64_t index) {
  return (words[(index >> 2) & 3] >> (8 * (index & 3))) & 0xFF;
}

// Whether an element fires: u * scaler < magnitude * 2^32, where u consists of
// a random byte and 24 more bits. Every product and the difference are exact in
// double when T is float.
inline bool Fires(double magnitude, double scaler, int byte, uint32_t low) {
  const double rest = magnitude * 256.0 - byte * scaler;
  return (rest > 0.0) & ((rest >= scaler) | (low * scaler < rest * 0x1p24));
}

// The same, but draws the 24 bits only where the byte leaves it open.
inline bool Fires(double magnitude, double scaler, int byte, int64_t index,
                  const Stream& stream) {
  const double rest = magnitude * 256.0 - byte * scaler;
  if (rest <= 0.0) return false;
  if (rest >= scaler) return true;
  const Philox4 words = Philox(Counter(stream, static_cast<uint64_t>(index)),
                               stream.seed ^ kTieKey);
  return Fires(magnitude, scaler, byte, words[0] >> 8);
}

// `index` is the element's index in its tensor, `words` the Philox block it
// falls in.
template <typename T>
inline void TernarizeElement(const Run<T>& run, int64_t i, const Philox4& words,
                             uint16_t* plus, uint16_t* minus, Counts* counts) {
  T magnitude = std::fabs(run.data[i]);
  if (magnitude > run.clip_level) {
    magnitude = run.clip_level;
    ++counts->clipped;
  }
  const int64_t index = run.first + i;
  if (Fires(magnitude, run.scaler, RandomByte(words, index), index,
            *run.stream)) {
    const int64_t bit = run.first_bit + i;
    uint16_t* plane = std::signbit(run.data[i]) ? minus : plus;
    plane[bit / 16] |= static_cast<uint16_t>(1u << (bit % 16));
    ++counts->nonzero;
  }
}

// Elements [begin, end) of the run, one at a time.
template <typename T>
void TernarizeElements(const Run<T>& run, int64_t begin, int64_t end,
                       uint16_t* plus, uint16_t* minus, Counts* counts) {
  Philox4 words = {};
  int64_t block = -1;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t index = run.first + i;
    if (index / kPhiloxBlock != block) {
      block = index / kPhiloxBlock;
      words = Philox(Counter(*run.stream, static_cast<uint64_t>(block)),
                     run.stream->seed);
    }
    TernarizeElement(run, i, words, plus, minus, counts);
  }
}

template <typename T>
Counts Ternarize(const Run<T>& run, uint16_t* plus, uint16_t* minus) {
  Counts counts;
  TernarizeElements(run, 0, run.count, plus, minus, &counts);
  return counts;
}

inline void WidenF16(const uint16_t* data, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = FromFloat16(data[i]);
}

inline void WidenBf16(const uint16_t* data, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(data[i]) << 16;
    std::memcpy(out + i, &bits, sizeof(bits));
  }
}

// Elements of a group of the trit format, and its bytes.
constexpr int kGroupParts = 5;
constexpr int kGroupBytes = 32;
// The byte of five zeros: the sum of 3^k.
constexpr int kZeroTrits = 121;

inline void PackTrits(const uint16_t* plus, const uint16_t* minus,
                      int64_t groups, uint8_t* bytes) {
  for (int64_t g = 0; g < groups; ++g) {
    uint32_t plus_bits[kGroupParts];
    uint32_t minus_bits[kGroupParts];
    std::memcpy(plus_bits, plus + 10 * g, sizeof(plus_bits));
    std::memcpy(minus_bits, minus + 10 * g, sizeof(minus_bits));
    for (int j = 0; j < kGroupBytes; ++j) {
      uint32_t code = 0;
      for (int k = kGroupParts - 1; k >= 0; --k) {
        code = 3 * code + 1 + ((plus_bits[k] >> j) & 1) -
               ((minus_bits[k] >> j) & 1);
      }
      bytes[kGroupBytes * g + j] = static_cast<uint8_t>(code);
    }
  }
}

inline void AddTrits(const uint8_t* bytes, int64_t groups, uint8_t* sums) {
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* in = bytes + kGroupBytes * g;
    uint8_t* out = sums + kGroupBytes * kGroupParts * g;
    for (int j = 0; j < kGroupBytes; ++j) {
      uint16_t rest = in[j];
      for (int k = 0; k < kGroupParts; ++k) {
        // A third, exact below 2^8.
        const uint16_t third = static_cast<uint16_t>(rest * 171u) >> 9;
        out[kGroupBytes * k + j] += static_cast<uint8_t>(rest - 3 * third);
        rest = third;
      }
    }
  }
}

inline void ScaleU8(const uint8_t* sums, int64_t count, int32_t offset,
                    float ratio, bool, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(sums[i] - offset) * ratio;
  }
}

}  // namespace
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_KERNELS_INL_H_
