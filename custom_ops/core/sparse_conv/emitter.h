// Machine code for x86-64, as far as sums of products on vectors need it: ymm
// registers with AVX2 (VEX encoding), zmm registers with AVX-512 (EVEX).
//
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2,
// sections 2.3 and 2.7.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_

#include <cstdint>
#include <cstring>

namespace sparse_conv {

// General registers that addresses begin with.
enum Base { kRcx = 1, kRdx = 2, kRsi = 6, kRdi = 7 };

class Emitter {
 public:
  // Bytes of an instruction, at most, and those behind the last one that are
  // written too.
  static constexpr int kMostBytes = 10;
  static constexpr int kSlack = 8;

  // Writes to `code`; `wide` for zmm.
  Emitter(bool wide, uint8_t* code) : wide_(wide), at_(code) {}

  // Where the next instruction goes.
  uint8_t* at() const { return at_; }

  // vmovups vector, [base + bytes]
  void Load(int vector, Base base, int32_t bytes) {
    Memory(vector, 0, 0x10, kNone, base, bytes, Full(), false);
  }
  // vmovups [base + bytes], vector
  void Store(int vector, Base base, int32_t bytes) {
    Memory(vector, 0, 0x11, kNone, base, bytes, Full(), false);
  }
  // vbroadcastss vector, dword [base + bytes]
  void Broadcast(int vector, Base base, int32_t bytes) {
    Memory(vector, 0, 0x18, k66_0F38, base, bytes, 4, false);
  }
  // vfmadd231ps sum, a, b
  void MulAdd(int sum, int a, int b) {
    const Bytes prefix = Prefix(sum, a, k66_0F38, b >> 3, b >> 4, false);
    const uint64_t rest = 0xb8 | (0xc0 | (sum & 7) << 3 | (b & 7)) << 8;
    Put(prefix.bits | rest << 8 * prefix.count, prefix.count + 2);
  }
  // vfmadd231ps sum, a, dword [base + bytes]{1to16}; zmm only.
  void MulAddBroadcast(int sum, int a, Base base, int32_t bytes) {
    Memory(sum, a, 0xb8, k66_0F38, base, bytes, 4, true);
  }
  // add base, bytes
  void Add(Base base, int32_t bytes) {
    Put(0x48 | 0x81 << 8 | (0xc0 | base) << 16 |
            static_cast<uint64_t>(static_cast<uint32_t>(bytes)) << 24,
        7);
  }
  void Return() {
    Put(0xc377f8c5, 4);  // vzeroupper, ret
  }

 private:
  enum Map { kNone = 0, k66_0F38 = 1 };  // opcode map with its prefix

  int Full() const { return wide_ ? 64 : 32; }
  // Bytes, the first one lowest.
  struct Bytes {
    uint64_t bits;
    int count;
  };
  void Put(uint64_t bits, int count) {
    std::memcpy(at_, &bits, sizeof(bits));
    at_ += count;
  }

  // `rm`, `rm_high`: bits 3 and 4 of the register in the place of memory.
  Bytes Prefix(int reg, int vvvv, Map map, int rm, int rm_high,
               bool broadcast) const {
    const int pp = map == k66_0F38 ? 1 : 0;
    const int mm = map == k66_0F38 ? 2 : 1;
    // All register bits here are inverted.
    const int r = ~reg >> 3 & 1;
    const int b = ~rm & 1;
    if (wide_) {
      const int p0 =
          r << 7 | (~rm_high & 1) << 6 | b << 5 | (~reg >> 4 & 1) << 4 | mm;
      const int p1 = (~vvvv & 15) << 3 | 4 | pp;
      const int p2 = 2 << 5 | broadcast << 4 | (~vvvv >> 4 & 1) << 3;
      return {0x62u | static_cast<uint64_t>(p0) << 8 |
                  static_cast<uint64_t>(p1) << 16 |
                  static_cast<uint64_t>(p2) << 24,
              4};
    }
    const int p0 = r << 7 | 1 << 6 | b << 5 | mm;
    const int p1 = (~vvvv & 15) << 3 | 1 << 2 | pp;
    return {0xc4u | static_cast<uint64_t>(p0) << 8 |
                static_cast<uint64_t>(p1) << 16,
            3};
  }

  // `unit`: bytes that a short displacement counts in EVEX.
  void Memory(int reg, int vvvv, int opcode, Map map, Base base, int32_t bytes,
              int unit, bool broadcast) {
    const Bytes prefix = Prefix(reg, vvvv, map, 0, 0, broadcast);
    const int scale = wide_ ? unit : 1;
    const int32_t scaled = bytes / scale;
    const bool is_short = bytes % scale == 0 && scaled >= -128 && scaled <= 127;
    const int fields = (is_short ? 0x40 : 0x80) | (reg & 7) << 3 | base;
    const uint64_t rest = opcode | fields << 8;
    Put(prefix.bits | rest << 8 * prefix.count, prefix.count + 2);
    if (is_short) {
      Put(static_cast<uint8_t>(scaled), 1);
    } else {
      Put(static_cast<uint32_t>(bytes), 4);
    }
  }

  const bool wide_;
  uint8_t* at_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_
