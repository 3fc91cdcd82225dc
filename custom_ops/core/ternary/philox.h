// Philox4x32-10, the counter-based random generator behind the ternary codec.
//
// Reference: Salmon, Moraes, Dror, Shaw. "Parallel Random Numbers: As Easy as
// 1, 2, 3". SC 2011. Known answers are in philox's own test vectors and in
// ternary_test.cc.

#ifndef CUSTOM_OPS_CORE_TERNARY_PHILOX_H_
#define CUSTOM_OPS_CORE_TERNARY_PHILOX_H_

#include <array>
#include <cstdint>

namespace ternary {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

using Philox4 = std::array<uint32_t, 4>;

// Functions here are static: files of several instruction sets include them,
// and the linker must not merge the copies.

static inline Philox4 Philox(Philox4 counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key);
  uint32_t key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0,
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1,
               static_cast<uint32_t>(product0)};
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return counter;
}

// The random stream of one tensor on one worker in one step.
struct Stream {
  uint64_t seed;
  uint64_t step;    // 40 bits
  uint32_t rank;    // 24 bits
  uint32_t tensor;  // 24 bits
};

// Tie-breaking bits come from a second key, so that they are independent of
// the bits that found the tie.
constexpr uint64_t kTieKey = 0x7465726E61727921ull;  // "ternary!"

// `index` (40 bits) is a block of 16 elements for the first 8 bits of each
// element, and an element for its tie-breaking bits.
static inline Philox4 Counter(const Stream& stream, uint64_t index) {
  return {static_cast<uint32_t>(index),
          (static_cast<uint32_t>(index >> 32) & 0xFFu) | (stream.rank << 8),
          (stream.tensor & 0xFFFFFFu) |
              (static_cast<uint32_t>(stream.step & 0xFFu) << 24),
          static_cast<uint32_t>(stream.step >> 8)};
}

}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_PHILOX_H_
