// The inner loops of the codec, one set per instruction set. All sets compute
// the same bits.

#ifndef CUSTOM_OPS_CORE_TERNARY_KERNELS_H_
#define CUSTOM_OPS_CORE_TERNARY_KERNELS_H_

#include <cstdint>

#include "custom_ops/core/ternary/philox.h"

namespace ternary {

// Elements that one Philox counter serves: 16 bytes.
constexpr int64_t kPhiloxBlock = 16;
// Statistics are summed in blocks of this many elements, then over blocks.
constexpr int64_t kStatisticsBlock = 4096;
// Scalers below this count as 0: 256 / scaler must stay finite.
constexpr double kSmallestScaler = 0x1p-100;

struct Moments {
  double sum;
  double sum_squares;
};

struct Statistics {
  Moments moments;
  double abs_max;
};

// One run of elements of one tensor that share a bucket.
template <typename T>
struct Run {
  const T* data;      // first element of the run
  int64_t first;      // its index in the tensor
  int64_t count;      // elements in the run
  int64_t first_bit;  // where its bits go in the planes; the planes' bit 0
                      // belongs to an element whose index is a multiple
                      // of kPhiloxBlock
  T clip_level;       // |g| above this is cut to it
  T scaler;           // finite, >= kSmallestScaler
  const Stream* stream;
};

struct Counts {
  int64_t nonzero = 0;
  int64_t clipped = 0;
};

// How words of `digits` digits fall into three parts of `third` digits, the
// highest one with fewer. A part below base^third is made a fraction of
// `fraction_bits` bits, whose integer part after each multiplication by `base`
// is the next digit, the highest first; both fit 32 bits.
struct Thirds {
  int digits = 0;  // 0: words of this base do not fall so
  int third;
  uint32_t base;
  uint64_t low;        // base^third
  uint64_t low_two;    // base^(2 third)
  double per_low_two;  // 1 / low_two, a little less
  // part * to_fraction >> fraction_shift, plus 1: too large by less than what
  // `third` multiplications make a digit of.
  uint64_t to_fraction;
  int fraction_shift;
  int fraction_bits;
};
// Words that unpack_thirds takes at a time.
constexpr int kUnpackWords = 16;
// Bytes that unpacking may write around the digits.
constexpr int kDigitSlack = 16;

struct Kernels {
  const char* name;

  // Statistics of at most kStatisticsBlock elements. Sums: element i is added
  // to lane i % 16 in double, then the lanes in order.
  Statistics (*statistics_f32)(const float* data, int64_t count);
  Statistics (*statistics_f64)(const double* data, int64_t count);

  // max |g|; infinity if any element is not finite; 0 if count is 0.
  double (*abs_max_f32)(const float* data, int64_t count);
  double (*abs_max_f64)(const double* data, int64_t count);

  // Sets the bits of +1 and -1 elements in planes that are 0 there.
  Counts (*ternarize_f32)(const Run<float>& run, uint16_t* plus,
                          uint16_t* minus);
  Counts (*ternarize_f64)(const Run<double>& run, uint16_t* plus,
                          uint16_t* minus);

  // 16-bit floats to float.
  void (*widen_f16)(const uint16_t* data, int64_t count, float* out);
  void (*widen_bf16)(const uint16_t* data, int64_t count, float* out);

  // The trit format: groups of 160 elements in 32 bytes. Byte j of group g is
  // the sum over k = 0..4 of 3^k * (1 + plus - minus) of element
  // 160 * g + 32 * k + j.
  void (*pack_trits)(const uint16_t* plus, const uint16_t* minus,
                     int64_t groups, uint8_t* bytes);
  // Adds the trits of the bytes to the sums of their elements.
  void (*add_trits)(const uint8_t* bytes, int64_t groups, uint8_t* sums);
  // Words to their digits, num_words * thirds.digits of them. May be null.
  void (*unpack_thirds)(const Thirds& thirds, const uint64_t* words,
                        int64_t num_words, uint8_t* sums);
  // out[i] = (sums[i] - offset) * ratio, rounded once. past_cache: only a hint
  // that `out` is written as a part of more than a cache holds: memory then
  // need not be read first.
  void (*scale_u8)(const uint8_t* sums, int64_t count, int32_t offset,
                   float ratio, bool past_cache, float* out);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// The set in use.
const Kernels& ActiveKernels();
void SetActiveKernels(const Kernels& kernels);  // for tests

}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_KERNELS_H_
