// The inner loops, one set per instruction set.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/schedule.h"

namespace sparse_conv {

constexpr int kMaxLanes = 16;

// Arguments of a list, for one tile.
struct ListCall {
  const Item* begin;
  const Item* end;
  const uint32_t* offsets;
  const float* weights;
  const float* planes;  // of the tile's first vector
  int64_t unit;         // elements that an offset counts
  float* sums;          // the first of these vectors in [rows, tile, lanes]
  int64_t row_stride;   // of sums, elements
  const float* bias;    // [rows], or null for zeros
};

using ListFunction = void (*)(const ListCall& call);

// Adds to the sums of items' rows; see kernels_inl.h.
struct Kernels {
  const char* name;
  int lanes;
  int max_vectors[kMaxItemRows + 1];  // by rows of an item
  // By rows of an item, then vectors, then whether sums begin from the bias.
  ListFunction (*list)(int rows, int vectors, bool first);

  // For each entry of the items, which have one row each, adds to
  // products[entry, lanes] (in place of weights) the products of the row's
  // `sums` with the shifted planes, over the vectors of a tile.
  void (*grad)(const ListCall& call, int vectors, float* products);

  // target[c * stride + r] = rows[r][c] for r < count <= lanes, c < columns.
  void (*gather)(const float* const* rows, int count, int64_t columns,
                 float* target, int64_t stride);
  // rows[r][c] = source[c * stride + r] for r < lanes, c < columns, where
  // rows[r] is not null; below 0 becomes 0 if `relu`; `past_cache` may write
  // past the caches.
  void (*scatter)(const float* source, int64_t stride, int64_t columns,
                  float* const* rows, bool relu, bool past_cache);
  // Makes what went past the caches visible to other threads.
  void (*fence)();
};

#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// The set in use; null: the scalar functions.
const Kernels* ActiveKernels();
// Of that name, or null if the machine cannot run it.
const Kernels* FindKernels(const char* name);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_H_
