// What all CUDA kernels of the convolution do: numbers, pixels, copies of
// chunks to shared memory.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BLOCK_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BLOCK_INL_H_

#include <cstdint>
#include <cstring>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_layout_inl.h"

namespace sparse_conv {
namespace cuda {

// --- Numbers -----------------------------------------------------------------

template <typename To, typename From>
SPARSE_CONV_HOST_DEVICE To BitCast(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  memcpy(&result, &value, sizeof(result));
  return result;
}

// A float as tensor cores take it: 10 bits of mantissa, to nearest, ties away
// from zero.
SPARSE_CONV_HOST_DEVICE uint32_t ToTf32(float value) {
#if defined(__CUDA_ARCH__)
  uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
  return result;
#else
  const uint32_t bits = BitCast<uint32_t>(value);
  if ((bits & 0x7F800000u) == 0x7F800000u) return bits;
  return (bits + 0x1000u) & ~0x1FFFu;
#endif
}

SPARSE_CONV_HOST_DEVICE uint32_t ToBf16(float value) {
  const uint32_t bits = BitCast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFFu;
  return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

// Two of them, `low` in the lower half.
SPARSE_CONV_HOST_DEVICE uint32_t ToBf16Pair(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
#else
  return ToBf16(low) | ToBf16(high) << 16;
#endif
}

// --- Pixels ------------------------------------------------------------------

struct alignas(16) Vector4 {
  uint32_t word[4];
};
struct alignas(8) Vector2 {
  uint32_t word[2];
};

struct Call {
  Part part;
  const char* memory;  // the image
  const float* input;
  const float* bias;  // or null
  float* output;
  int64_t batch;
  bool relu;
  bool is_aligned;  // the input, to 16 bytes
};

// The first pixel of a block.
struct Origin {
  int64_t image;
  int y, x;
};

SPARSE_CONV_HOST_DEVICE Origin OriginOfTile(const Part& part, int64_t tile) {
  const int64_t row = tile / part.tiles_x;
  return {row / part.tiles_y * part.tile_images,
          static_cast<int>(row % part.tiles_y) * part.tile_height,
          static_cast<int>(tile % part.tiles_x) * part.tile_width};
}

SPARSE_CONV_HOST_DEVICE Origin OriginOf(const Part& part, int64_t block) {
  return OriginOfTile(part, block / part.num_sets);
}

SPARSE_CONV_HOST_DEVICE const Set& SetOf(const Call& call, int64_t block) {
  return reinterpret_cast<const Set*>(
      call.memory + call.part.sets)[block % call.part.num_sets];
}

// Pixel `slot` of a block: image, row and column of the tile. image is
// tile_images or more where there is none.
struct Pixel {
  int image, y, x;
};

SPARSE_CONV_HOST_DEVICE Pixel PixelOf(const Part& part, int slot) {
  const int row = slot / part.tile_width;
  const int image = row / part.tile_height;
  return {image, row - image * part.tile_height, slot - row * part.tile_width};
}

// base(p) of sparse_conv_cuda_layout_inl.h; any where there is no pixel.
SPARSE_CONV_HOST_DEVICE int BaseOf(const Part& part, int slot) {
  const Pixel pixel = PixelOf(part, slot);
  if (pixel.image >= part.tile_images) return 0;
  return ((pixel.image * part.rows + pixel.y) * part.cols + pixel.x) *
         part.pixel_pitch;
}

// Where the pixel lies in the output, or -1 where it does not.
SPARSE_CONV_HOST_DEVICE int64_t OutputOf(const Call& call, const Origin& origin,
                                         int slot) {
  const Part& part = call.part;
  const Pixel pixel = PixelOf(part, slot);
  const int64_t image = origin.image + pixel.image;
  const int y = origin.y + pixel.y;
  const int x = origin.x + pixel.x;
  if (pixel.image >= part.tile_images || image >= call.batch ||
      y >= part.out_height || x >= part.out_width) {
    return -1;
  }
  return image * part.out_image + part.out_first + y * part.out_y +
         x * part.out_x;
}

// Of a filter; -1: none.
SPARSE_CONV_HOST_DEVICE float BiasOf(const Call& call, int filter) {
  return call.bias == nullptr || filter < 0 ? 0.0f : call.bias[filter];
}

// Stores a sum, bias included.
SPARSE_CONV_HOST_DEVICE void Store(const Call& call, int64_t pixel, int filter,
                                   float sum) {
  if (pixel < 0 || filter < 0) return;
  if (call.relu && sum < 0.0f) sum = 0.0f;  // NaN stays NaN
  call.output[pixel + int64_t{filter} * call.part.out_channel] = sum;
}

// --- Chunks ------------------------------------------------------------------

SPARSE_CONV_HOST_DEVICE float* PatchOf(char* shared, int step) {
  return reinterpret_cast<float*>(shared + step % kStages * kStageBytes);
}

SPARSE_CONV_HOST_DEVICE char* StreamOf(const Part& part, char* shared,
                                       int step) {
  return reinterpret_cast<char*>(PatchOf(shared, step) + part.patch_floats);
}

SPARSE_CONV_HOST_DEVICE Chunk ChunkOf(const Call& call, int64_t index) {
  return reinterpret_cast<const Chunk*>(call.memory + call.part.chunks)[index];
}

// Starts to copy the patches of a chunk's units, zeros outside the image.
template <int threads, typename Thread>
SPARSE_CONV_HOST_DEVICE void CopyPatches(const Call& call, const Chunk& chunk,
                                         const Origin& origin, int thread,
                                         float* patch, Thread* machine) {
  const Part& part = call.part;
  const Unit* units = reinterpret_cast<const Unit*>(call.memory + part.units) +
                      chunk.first_unit;
  const int num_rows = part.tile_images * part.rows;
  const int num_items = part.cols << part.log2_units;
  // A warp copies a row. In NHWC neighbouring lanes copy units of one pixel,
  // else pixels of one unit.
  for (int row = thread / kWarp; row < num_rows; row += threads / kWarp) {
    const int tile_image = row / part.rows;
    const int64_t image = origin.image + tile_image;
    const int y =
        (origin.y + row - tile_image * part.rows) * part.stride_height;
    for (int item = thread % kWarp; item < num_items; item += kWarp) {
      int unit_index, col;
      if (part.is_nhwc) {
        unit_index = item & ((1 << part.log2_units) - 1);
        col = item >> part.log2_units;
      } else {
        unit_index = item / part.cols;
        col = item - unit_index * part.cols;
      }
      if (unit_index >= chunk.num_units) continue;
      const Unit unit = units[unit_index];
      const int in_y = y + unit.dy;
      const int in_x = (origin.x + col) * part.stride_width + unit.dx;
      const bool inside = image < call.batch && in_y >= 0 &&
                          in_y < part.height && in_x >= 0 && in_x < part.width;
      const float* from = inside ? call.input + image * part.in_image +
                                       in_y * part.in_y + in_x * part.in_x +
                                       unit.channel * part.in_channel
                                 : call.input;
      float* to = patch + unit_index * part.unit_pitch +
                  (row * part.cols + col) * part.pixel_pitch;
      if (part.unit_channels == 1) {
        machine->template Copy<4>(to, from, inside);
      } else if (call.is_aligned) {
        machine->template Copy<16>(to, from, inside);
      } else {
        for (int i = 0; i < 4; ++i) {
          machine->template Copy<4>(to + i, inside ? from + i : from, inside);
        }
      }
    }
  }
}

template <int threads, typename Thread>
SPARSE_CONV_HOST_DEVICE void CopyStream(const Call& call, const Chunk& chunk,
                                        int thread, char* to, Thread* machine) {
  const char* from =
      call.memory + call.part.stream + int64_t{chunk.first_vector} * 16;
  for (int i = thread; i < chunk.num_vectors; i += threads) {
    machine->template Copy<16>(to + 16 * i, from + 16 * i, true);
  }
}

// Starts to copy the chunk of a step, if there is one.
template <int threads, typename Thread>
SPARSE_CONV_HOST_DEVICE void StartChunk(const Call& call, int64_t block,
                                        int step, int thread, char* shared,
                                        Thread* machine) {
  const Set& set = SetOf(call, block);
  if (step < set.num_chunks) {
    const Chunk chunk = ChunkOf(call, set.first_chunk + step);
    CopyPatches<threads>(call, chunk, OriginOf(call.part, block), thread,
                         PatchOf(shared, step), machine);
    CopyStream<threads>(call, chunk, thread, StreamOf(call.part, shared, step),
                        machine);
  }
  machine->Commit();
}

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BLOCK_INL_H_
