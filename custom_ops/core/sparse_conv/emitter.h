// Machine code for x86-64, as far as sums of products on vectors need it: ymm
// registers with AVX2 (VEX encoding), zmm registers with AVX-512 (EVEX).
//
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2,
// sections 2.3 and 2.7.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_

#include <cstdint>
#include <vector>

namespace sparse_conv {

// General registers that addresses begin with.
enum Base { kRcx = 1, kRdx = 2, kRsi = 6, kRdi = 7 };

class Emitter {
 public:
  // Appends to `code`; `wide` for zmm.
  Emitter(bool wide, std::vector<uint8_t>* code) : wide_(wide), code_(code) {}

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
    Prefix(sum, a, k66_0F38, b >> 3, b >> 4, false);
    Byte(0xb8);
    Byte(0xc0 | (sum & 7) << 3 | (b & 7));
  }
  // vfmadd231ps sum, a, dword [base + bytes]{1to16}; zmm only.
  void MulAddBroadcast(int sum, int a, Base base, int32_t bytes) {
    Memory(sum, a, 0xb8, k66_0F38, base, bytes, 4, true);
  }
  // add base, bytes
  void Add(Base base, int32_t bytes) {
    Byte(0x48);
    Byte(0x81);
    Byte(0xc0 | base);
    Int32(bytes);
  }
  void Return() {
    for (const int byte : {0xc5, 0xf8, 0x77, 0xc3}) Byte(byte);  // vzeroupper
  }

 private:
  enum Map { kNone = 0, k66_0F38 = 1 };  // opcode map with its prefix

  int Full() const { return wide_ ? 64 : 32; }
  void Byte(int byte) { code_->push_back(static_cast<uint8_t>(byte)); }
  void Int32(int32_t value) {
    for (int shift = 0; shift < 32; shift += 8) Byte(value >> shift & 0xff);
  }

  // `rm`, `rm_high`: bits 3 and 4 of the register in the place of memory.
  void Prefix(int reg, int vvvv, Map map, int rm, int rm_high, bool broadcast) {
    const int pp = map == k66_0F38 ? 1 : 0;
    const int mm = map == k66_0F38 ? 2 : 1;
    // All register bits here are inverted.
    const int r = ~reg >> 3 & 1;
    const int b = ~rm & 1;
    if (wide_) {
      Byte(0x62);
      Byte(r << 7 | (~rm_high & 1) << 6 | b << 5 | (~reg >> 4 & 1) << 4 | mm);
      Byte((~vvvv & 15) << 3 | 4 | pp);
      Byte(2 << 5 | broadcast << 4 | (~vvvv >> 4 & 1) << 3);
      return;
    }
    Byte(0xc4);
    Byte(r << 7 | 1 << 6 | b << 5 | mm);
    Byte((~vvvv & 15) << 3 | 1 << 2 | pp);
  }

  // `unit`: bytes that a short displacement counts in EVEX.
  void Memory(int reg, int vvvv, int opcode, Map map, Base base, int32_t bytes,
              int unit, bool broadcast) {
    Prefix(reg, vvvv, map, 0, 0, broadcast);
    Byte(opcode);
    const int scale = wide_ ? unit : 1;
    const int32_t scaled = bytes / scale;
    const int fields = (reg & 7) << 3 | base;
    if (bytes % scale == 0 && scaled >= -128 && scaled <= 127) {
      Byte(0x40 | fields);
      Byte(scaled & 0xff);
    } else {
      Byte(0x80 | fields);
      Int32(bytes);
    }
  }

  const bool wide_;
  std::vector<uint8_t>* const code_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_EMITTER_H_
