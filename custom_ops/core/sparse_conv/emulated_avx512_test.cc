// The AVX-512 kernels by emulation, part of sparse_conv_test: the lists with
// SIMDe, if its headers are there (Debian: libsimde-dev), and generated code by
// an interpreter of the instructions that Emitter knows.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "custom_ops/core/sparse_conv/choice.h"
#include "custom_ops/core/sparse_conv/sparse_conv_test.h"

#if defined(__x86_64__) && __has_include(<simde/x86/avx512.h>)

#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

namespace {

struct Simd {
  using Vector = simde__m512;
  static constexpr int kLanes = 16;
  static constexpr int kMaxVectors1 = 28;
  static constexpr int kMaxVectors2 = 13;
  static constexpr int kMaxVectors4 = 6;

  static Vector Zero() { return simde_mm512_setzero_ps(); }
  static Vector Set1(float x) { return simde_mm512_set1_ps(x); }
  static Vector Load(const float* p) { return simde_mm512_loadu_ps(p); }
  static void Store(float* p, Vector x) { simde_mm512_storeu_ps(p, x); }
  static Vector Add(Vector a, Vector b) { return simde_mm512_add_ps(a, b); }
  static Vector MulAdd(Vector a, Vector b, Vector c) {
    return simde_mm512_fmadd_ps(a, b, c);
  }
};

}  // namespace

#include "custom_ops/core/sparse_conv/kernels_inl.h"

namespace sparse_conv {
namespace {

void ScalarGather(const float* const* rows, int count, int64_t columns,
                  float* target, int64_t stride) {
  for (int r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) target[c * stride + r] = rows[r][c];
  }
}

void ScalarScatter(const float* source, int64_t stride, int64_t columns,
                   float* const* rows, bool relu, bool /*past_cache*/) {
  for (int r = 0; r < Simd::kLanes; ++r) {
    if (rows[r] == nullptr) continue;
    for (int64_t c = 0; c < columns; ++c) {
      const float value = source[c * stride + r];
      rows[r][c] = relu && value < 0 ? 0.0f : value;
    }
  }
}

const Kernels kEmulatedKernels = {
    "emulated",
    Simd::kLanes,
    {0, Simd::kMaxVectors1, Simd::kMaxVectors2, 0, Simd::kMaxVectors4},
    SelectList,
    Grad,
    ScalarGather,
    ScalarScatter,
    [] {},
};

// Executes EVEX code on zmm registers, byte by byte; anything unknown fails.
void Interpret(const uint8_t* code, const float* planes, const float* weights,
               float* sums, const float* bias) {
  const uint8_t* general[8] = {};
  general[1] = reinterpret_cast<const uint8_t*>(bias);
  general[2] = reinterpret_cast<const uint8_t*>(sums);
  general[6] = reinterpret_cast<const uint8_t*>(weights);
  general[7] = reinterpret_cast<const uint8_t*>(planes);
  float zmm[32][16];
  std::memset(zmm, 0xff, sizeof(zmm));  // NaN
  const auto int32_at = [](const uint8_t* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  };
  for (;;) {
    if (code[0] == 0x48 && code[1] == 0x81) {  // add r64, imm32
      CHECK(code[2] >> 3 == 0xc0 >> 3);
      general[code[2] & 7] += int32_at(code + 3);
      code += 7;
      continue;
    }
    if (code[0] == 0xc5) {  // vzeroupper; ret
      CHECK(code[1] == 0xf8 && code[2] == 0x77 && code[3] == 0xc3);
      return;
    }
    CHECK(code[0] == 0x62);
    const int p0 = code[1];
    const int p1 = code[2];
    const int p2 = code[3];
    const int opcode = code[4];
    const int modrm = code[5];
    // W 0, 512 bits, no mask, no zeroing.
    CHECK((p0 & 0x0c) == 0 && (p1 & 0x84) == 4 && (p2 & 0xe7) == 0x40);
    const int map = p0 & 3;
    const int prefix = p1 & 3;
    const bool broadcast = p2 >> 4 & 1;
    const int reg =
        (modrm >> 3 & 7) | (~p0 >> 7 & 1) << 3 | (~p0 >> 4 & 1) << 4;
    const int vvvv = (~p1 >> 3 & 15) | (~p2 >> 3 & 1) << 4;
    const int mode = modrm >> 6;
    CHECK(mode == 1 || mode == 2);
    CHECK((modrm & 7) != 4 && (p0 & 0x60) == 0x60);  // no index, low base
    const int unit = broadcast || opcode == 0x18 ? 4 : 64;
    const int64_t bytes =
        mode == 1 ? static_cast<int8_t>(code[6]) * unit : int32_at(code + 6);
    const uint8_t* address = general[modrm & 7];
    CHECK(address != nullptr);
    address += bytes;
    code += mode == 1 ? 7 : 10;
    if (opcode == 0xb8) {  // vfmadd231ps with {1to16}
      CHECK(map == 2 && prefix == 1 && broadcast);
      float weight;
      std::memcpy(&weight, address, sizeof(weight));
      for (int i = 0; i < 16; ++i) {
        zmm[reg][i] = std::fma(zmm[vvvv][i], weight, zmm[reg][i]);
      }
      continue;
    }
    CHECK(vvvv == 0 && !broadcast);
    if (opcode == 0x18) {  // vbroadcastss
      CHECK(map == 2 && prefix == 1);
      for (float& lane : zmm[reg]) std::memcpy(&lane, address, sizeof(lane));
    } else if (opcode == 0x10) {  // vmovups
      CHECK(map == 1 && prefix == 0);
      std::memcpy(zmm[reg], address, sizeof(zmm[reg]));
    } else {
      CHECK(opcode == 0x11 && map == 1 && prefix == 0);
      std::memcpy(const_cast<uint8_t*>(address), zmm[reg], sizeof(zmm[reg]));
    }
  }
}

const JitTarget kInterpreted = {true, 16, 28, 1, Interpret};

}  // namespace

void AddEmulatedKernels() {
  AddChoice({"emulated_avx512", &kEmulatedKernels, true, true, nullptr});
  if (sparse_conv_executable_memory()) {
    AddChoice(
        {"emulated_avx512_jit", &kEmulatedKernels, true, true, &kInterpreted});
  }
}

}  // namespace sparse_conv

#else

namespace sparse_conv {
void AddEmulatedKernels() {}
}  // namespace sparse_conv

#endif
