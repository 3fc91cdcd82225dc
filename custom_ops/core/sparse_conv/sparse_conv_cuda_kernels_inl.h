// Kernels of the CUDA convolution, each an object with
//
//   kThreads                        of a block;
//   kSharedBytes                    of shared memory of a block;
//   Registers                       what a thread keeps;
//   void Begin(block, thread, shared, Registers*, Thread*)
//   int NumSteps(block)             all threads wait before each, then
//   void Step(step, ...)            the same arguments, and after the last
//   void End(i, ...)                kEnds times.
//
// Thread does what only a GPU does: copies that are under way while others
// compute, instructions of tensor cores, sums over a warp. Everything else is
// plain C++, which the host runs as loops over blocks, steps and threads.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_KERNELS_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_KERNELS_INL_H_

#include <cmath>
#include <cstdint>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_block_inl.h"

namespace sparse_conv {
namespace cuda {

// --- Unstructured ------------------------------------------------------------

// Lanes are pixels, a warp has 8 filters of the set. Each non-zero is one read
// of shared memory that all lanes share and, for each of a lane's pixels, one
// read and one multiplication: reads bound it, at a quarter of the peak of
// float32.
template <int pixel_steps>
struct DirectKernel {
  static constexpr int kThreads = 256;
  static constexpr int kPixels = kPixelStep * pixel_steps;
  static constexpr int kOwnPixels = kPixels / kWarp;
  static constexpr int kOwnFilters = kFilters * kWarp / kThreads;
  static constexpr int kEnds = 2;
  static constexpr int kSumPitch = kPixels + 1;  // columns in different banks
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert((kFilters * kSumPitch + 2 * kPixels) * 4 <= kSharedBytes,
                "sums have no room");

  struct Registers {
    int base[kOwnPixels];
    float sum[kOwnFilters][kOwnPixels];
  };

  Call call;

  SPARSE_CONV_HOST_DEVICE int NumSteps(int64_t block) const {
    return SetOf(call, block).num_chunks;
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Begin(int64_t block, int thread, char* shared,
                                     Registers* own, Thread* machine) const {
    StartChunk<kThreads>(call, block, 0, thread, shared, machine);
    SPARSE_CONV_UNROLL
    for (int p = 0; p < kOwnPixels; ++p) {
      own->base[p] = BaseOf(call.part, p * kWarp + thread % kWarp);
      SPARSE_CONV_UNROLL
      for (int f = 0; f < kOwnFilters; ++f) own->sum[f][p] = 0.0f;
    }
    machine->Wait();
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Step(int step, int64_t block, int thread,
                                    char* shared, Registers* own,
                                    Thread* machine) const {
    StartChunk<kThreads>(call, block, step + 1, thread, shared, machine);
    const float* patch = PatchOf(shared, step);
    const char* stream = StreamOf(call.part, shared, step);
    const int* bounds =
        reinterpret_cast<const int*>(stream) + thread / kWarp * kOwnFilters;
    const Vector2* records =
        reinterpret_cast<const Vector2*>(stream + BoundsBytes(kFilters));
    SPARSE_CONV_UNROLL
    for (int f = 0; f < kOwnFilters; ++f) {
      const int end = bounds[f + 1];
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
      for (int i = bounds[f]; i < end; ++i) {
        const Vector2 record = records[i];
        const float weight = BitCast<float>(record.word[1]);
        const float* column = patch + static_cast<int>(record.word[0]);
        SPARSE_CONV_UNROLL
        for (int p = 0; p < kOwnPixels; ++p) {
          own->sum[f][p] = fmaf(weight, column[own->base[p]], own->sum[f][p]);
        }
      }
    }
    machine->Wait();
  }

  // Through shared memory, so that neighbouring threads store neighbours.
  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void End(int i, int64_t block, int thread,
                                   char* shared, Registers* own,
                                   Thread*) const {
    int64_t* outputs = reinterpret_cast<int64_t*>(shared);
    float* sums = reinterpret_cast<float*>(outputs + kPixels);
    if (i == 0) {
      const int first = thread / kWarp * kOwnFilters;
      SPARSE_CONV_UNROLL
      for (int f = 0; f < kOwnFilters; ++f) {
        SPARSE_CONV_UNROLL
        for (int p = 0; p < kOwnPixels; ++p) {
          sums[(first + f) * kSumPitch + p * kWarp + thread % kWarp] =
              own->sum[f][p];
        }
      }
      const Origin origin = OriginOf(call.part, block);
      for (int slot = thread; slot < kPixels; slot += kThreads) {
        outputs[slot] = OutputOf(call, origin, slot);
      }
      return;
    }
    const Set& set = SetOf(call, block);
    for (int j = thread; j < kFilters * kPixels; j += kThreads) {
      const int f = call.part.is_nhwc ? j % kFilters : j / kPixels;
      const int slot = call.part.is_nhwc ? j / kFilters : j % kPixels;
      const int filter = set.filters[f];
      Store(call, outputs[slot], filter,
            sums[f * kSumPitch + slot] + BiasOf(call, filter));
    }
  }
};

// --- Tiles on tensor cores ---------------------------------------------------

// Four warps share the pixels, 16 * pixel_steps each, and have all filters of
// the set, so that they do the same work whatever tiles are live.
template <KernelKind kind, int tile_filters, int pixel_steps>
struct TileKernel {
  static constexpr int kThreads = 128;
  static constexpr int kPixels = kPixelStep * pixel_steps;
  static constexpr int kTiles = kFilters / tile_filters;
  static constexpr int kColumns8 = tile_filters / 8;  // matrices B of a tile
  static constexpr int kEnds = 1;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kRecordBytes = RecordBytes(kind, tile_filters);
  static constexpr int kSlots = Fragment<kind>::kSlotsOfLane;

  struct Registers {
    int base[pixel_steps][2];
    float sum[kTiles][pixel_steps][kColumns8][4];
  };

  Call call;

  SPARSE_CONV_HOST_DEVICE int NumSteps(int64_t block) const {
    return SetOf(call, block).num_chunks;
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Begin(int64_t block, int thread, char* shared,
                                     Registers* own, Thread* machine) const {
    StartChunk<kThreads>(call, block, 0, thread, shared, machine);
    SPARSE_CONV_UNROLL
    for (int m = 0; m < pixel_steps; ++m) {
      own->base[m][0] = BaseOf(call.part, SlotOf(thread, m, 0));
      own->base[m][1] = BaseOf(call.part, SlotOf(thread, m, 1));
    }
    SPARSE_CONV_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      SPARSE_CONV_UNROLL
      for (int m = 0; m < pixel_steps; ++m) {
        SPARSE_CONV_UNROLL
        for (int n = 0; n < kColumns8; ++n) {
          SPARSE_CONV_UNROLL
          for (int i = 0; i < 4; ++i) own->sum[t][m][n][i] = 0.0f;
        }
      }
    }
    machine->Wait();
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Step(int step, int64_t block, int thread,
                                    char* shared, Registers* own,
                                    Thread* machine) const {
    StartChunk<kThreads>(call, block, step + 1, thread, shared, machine);
    const float* patch = PatchOf(shared, step);
    const char* stream = StreamOf(call.part, shared, step);
    const int* bounds = reinterpret_cast<const int*>(stream);
    const int lane = thread % kWarp;
    SPARSE_CONV_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const char* record =
          stream + BoundsBytes(kTiles) + bounds[t] * kRecordBytes;
      const char* end =
          stream + BoundsBytes(kTiles) + bounds[t + 1] * kRecordBytes;
      for (; record < end; record += kRecordBytes) {
        int offset[kSlots];
        LoadOffsets(record, lane % 4, offset);
        Vector4 b[kColumns8 / 2];
        const Vector4* weights =
            reinterpret_cast<const Vector4*>(record + OffsetBytes(kind));
        SPARSE_CONV_UNROLL
        for (int n = 0; n < kColumns8 / 2; ++n) {
          b[n] = weights[n * kWarp + lane];
        }
        SPARSE_CONV_UNROLL
        for (int m = 0; m < pixel_steps; ++m) {
          uint32_t a[4];
          LoadPixels(patch, own->base[m], offset, a);
          SPARSE_CONV_UNROLL
          for (int n = 0; n < kColumns8; ++n) {
            machine->template Multiply<kind>(a, &b[n / 2].word[n % 2 * 2],
                                             own->sum[t][m][n]);
          }
        }
      }
    }
    machine->Wait();
  }

  // Four lanes store 8 filters of a pixel, eight lanes 8 pixels of a filter:
  // whole sectors in either format.
  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void End(int, int64_t block, int thread, char*,
                                   Registers* own, Thread*) const {
    const Set& set = SetOf(call, block);
    const Origin origin = OriginOf(call.part, block);
    int64_t pixels[pixel_steps][2];
    SPARSE_CONV_UNROLL
    for (int m = 0; m < pixel_steps; ++m) {
      pixels[m][0] = OutputOf(call, origin, SlotOf(thread, m, 0));
      pixels[m][1] = OutputOf(call, origin, SlotOf(thread, m, 1));
    }
    SPARSE_CONV_UNROLL
    for (int j = 0; j < kFilters / 4; ++j) {  // pairs of columns of matrices
      const int t = j / 2 / kColumns8;
      const int n = j / 2 % kColumns8;
      const int filter = set.filters[j / 2 * 8 + thread % 4 * 2 + j % 2];
      const float bias = BiasOf(call, filter);
      SPARSE_CONV_UNROLL
      for (int m = 0; m < pixel_steps; ++m) {
        Store(call, pixels[m][0], filter, own->sum[t][m][n][j % 2] + bias);
        Store(call, pixels[m][1], filter, own->sum[t][m][n][2 + j % 2] + bias);
      }
    }
  }

 private:
  // The pixels of rows lane / 4 and lane / 4 + 8 of the thread's m-th matrix.
  static SPARSE_CONV_HOST_DEVICE int SlotOf(int thread, int m, int half) {
    return (thread / kWarp * pixel_steps + m) * 16 + half * 8 +
           thread % kWarp / 4;
  }

  static SPARSE_CONV_HOST_DEVICE void LoadOffsets(const char* record, int t,
                                                  int (&offset)[kSlots]) {
    if constexpr (kSlots == 2) {
      const Vector2 pair = reinterpret_cast<const Vector2*>(record)[t];
      offset[0] = static_cast<int>(pair.word[0]);
      offset[1] = static_cast<int>(pair.word[1]);
    } else {
      const Vector4 four = reinterpret_cast<const Vector4*>(record)[t];
      SPARSE_CONV_UNROLL
      for (int i = 0; i < 4; ++i) offset[i] = static_cast<int>(four.word[i]);
    }
  }

  // The thread's share of a matrix A: pixels by columns, rounded.
  static SPARSE_CONV_HOST_DEVICE void LoadPixels(const float* patch,
                                                 const int (&base)[2],
                                                 const int (&offset)[kSlots],
                                                 uint32_t (&a)[4]) {
    SPARSE_CONV_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float* pixel = patch + base[i % 2];
      if constexpr (kind == kTf32) {
        a[i] = ToTf32(pixel[offset[i / 2]]);
      } else {
        a[i] =
            ToBf16Pair(pixel[offset[i / 2 * 2]], pixel[offset[i / 2 * 2 + 1]]);
      }
    }
  }
};

// --- Values ------------------------------------------------------------------

// Puts weights into the stream. `slots` counts in weights from its beginning;
// -1: no pixel reads the weight.
struct SetValuesKernel {
  static constexpr int kThreads = 256;

  const void* values;
  bool is_bfloat16;
  KernelKind kind;
  const int32_t* slots;
  int64_t num_nonzeros;
  char* stream;

  SPARSE_CONV_HOST_DEVICE void Run(int64_t block, int thread) const {
    const int64_t i = block * kThreads + thread;
    if (i >= num_nonzeros) return;
    const int slot = slots[i];
    if (slot < 0) return;
    const float value =
        is_bfloat16
            ? BitCast<float>(uint32_t{static_cast<const uint16_t*>(values)[i]}
                             << 16)
            : static_cast<const float*>(values)[i];
    if (kind == kBf16) {
      reinterpret_cast<uint16_t*>(stream)[slot] =
          static_cast<uint16_t>(ToBf16(value));
    } else {
      reinterpret_cast<uint32_t*>(stream)[slot] =
          kind == kTf32 ? ToTf32(value) : BitCast<uint32_t>(value);
    }
  }
};

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_KERNELS_INL_H_
