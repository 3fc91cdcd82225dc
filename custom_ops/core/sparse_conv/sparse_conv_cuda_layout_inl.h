// What the host prepares for the CUDA kernels and how they read it.
//
// A convolution is a sum of columns: column (dy, dx, c) adds
//
//   w * input[n, y * stride_height + dy, x * stride_width + dx, c]
//
// to the filters that have a weight there. A block computes kFilters filters (a
// set) by at most kPixelStep * kMaxPixelSteps pixels of the output (a tile of
// images, rows, columns). It walks chunks of units: a unit is one channel, or
// four, of every stride_height-th row and stride_width-th column of the input,
// or, gathered, of those that one tap reads. The part of it that the tile sees
// is its patch, copied to shared memory. There the columns of a unit are
// shifts, whatever the stride, format and pads:
//
//   column at pixel p:  patch[base(p) + offset(column)]
//
// Beside the patches lies the chunk's stream: bounds of its lists of records,
// then the records. direct has a list for each filter and a record for each
// non-zero; the tensor cores have a list for each tile of filters and a record
// for each 8 (TF32) or 16 (bfloat16) columns that are live in it.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAYOUT_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAYOUT_INL_H_

#include <cstdint>

#if defined(__CUDACC__)
#define SPARSE_CONV_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SPARSE_CONV_HOST_DEVICE inline
#endif
#if defined(__CUDA_ARCH__)
#define SPARSE_CONV_UNROLL _Pragma("unroll")
#else
#define SPARSE_CONV_UNROLL
#endif

namespace sparse_conv {
namespace cuda {

constexpr int kWarp = 32;
constexpr int kFilters = 64;    // of a set
constexpr int kPixelStep = 64;  // pixels of a block: a multiple, up to
constexpr int kMaxPixelSteps = 4;
constexpr int kStages = 2;             // chunks in shared memory
constexpr int kStageBytes = 39 << 10;  // two blocks on one of 8.0, one on 8.6
constexpr int kMaxUnits = 32;          // of a chunk

enum KernelKind { kDirect = 0, kTf32 = 1, kBf16 = 2 };

struct Set {
  int32_t first_chunk;
  int32_t num_chunks;
  int32_t filters[kFilters];  // output channels, -1: none
};

struct Chunk {
  int32_t first_unit;
  int32_t num_units;
  int32_t first_vector;  // of its stream, in 16 bytes
  int32_t num_vectors;
  int32_t set;
};

struct Unit {
  int32_t channel;  // the first
  int32_t dy;       // of the row that output row 0 reads first
  int32_t dx;
};

// A record of the direct kernel.
struct Weighted {
  int32_t offset;
  float weight;
};

// One launch. Sizes that make no difference to the kernels stay on the host.
struct Part {
  // Of the input, and distances of neighbours in elements.
  int32_t height, width;
  int64_t in_image;
  int32_t in_y, in_x, in_channel;
  int32_t stride_height, stride_width;
  int32_t is_nhwc;
  // Of the output: pixels of this part.
  int32_t out_height, out_width;
  int64_t out_image;
  int32_t out_first, out_y, out_x, out_channel;
  // Pixels of a block, and blocks of an image.
  int32_t tile_images, tile_height, tile_width, tiles_y, tiles_x;
  // Patches: rows and columns an image; units of a chunk; distances of
  // neighbours in shared memory, in floats.
  int32_t rows, cols;
  int32_t log2_units, unit_channels;
  int32_t pixel_pitch, unit_pitch;
  int32_t patch_floats;
  int32_t num_sets, num_chunks;
  // Where tables begin in the image, in bytes.
  int64_t sets, chunks, units, stream;
};

// --- Fragments of the tensor cores -------------------------------------------
//
// Slot s of a record's columns, in the order in which lanes read offsets: lane
// % 4 == t reads slots [t * kSlotsOfLane, ...), which are, in the order of the
// instruction's registers, columns of its matrix A
//
//   mma.m16n8k8 (TF32):   t, t + 4
//   mma.m16n8k16 (bf16):  2t, 2t + 1, 2t + 8, 2t + 9
//
// and rows of its matrix B. Weights are stored by pairs of 8 filters, so that
// a lane reads its share of two matrices B at once.

template <KernelKind kind>
struct Fragment;

template <>
struct Fragment<kTf32> {
  static constexpr int kColumns = 8;
  static constexpr int kSlotsOfLane = 2;
  static constexpr int kWeightBytes = 4;
};

template <>
struct Fragment<kBf16> {
  static constexpr int kColumns = 16;
  static constexpr int kSlotsOfLane = 4;
  static constexpr int kWeightBytes = 2;
};

constexpr int kWarpWeightBytes = kWarp * 16;  // of 16 filters in a record

SPARSE_CONV_HOST_DEVICE constexpr int OffsetBytes(KernelKind kind) {
  return kind == kTf32 ? 32 : 64;
}

SPARSE_CONV_HOST_DEVICE constexpr int RecordBytes(KernelKind kind,
                                                  int tile_filters) {
  return kind == kDirect
             ? static_cast<int>(sizeof(Weighted))
             : OffsetBytes(kind) + tile_filters / 16 * kWarpWeightBytes;
}

// Where a record has the weight of slot s and filter n of the tile, in bytes.
template <KernelKind kind>
inline int WeightByte(int slot, int filter) {
  constexpr int kSlots = Fragment<kind>::kSlotsOfLane;
  constexpr int kHalves = kSlots / 2;  // weights of a register
  const int lane = filter % 8 * 4 + slot / kSlots;
  const int word = filter / 8 % 2 * 2 + slot % kSlots / kHalves;
  return OffsetBytes(kind) + filter / 16 * kWarpWeightBytes + lane * 16 +
         word * 4 + slot % kHalves * Fragment<kind>::kWeightBytes;
}

// Ints at the head of a chunk's stream: bounds of its lists, in records.
SPARSE_CONV_HOST_DEVICE constexpr int BoundsBytes(int lists) {
  return (lists + 1 + 3) / 4 * 16;
}

constexpr int NumLists(KernelKind kind, int tile_filters) {
  return kind == kDirect ? kFilters : kFilters / tile_filters;
}

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAYOUT_INL_H_
