// Images to strips of padded planes, and sums of tiles to images.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_CONVERT_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_CONVERT_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/kernels.h"
#include "custom_ops/core/sparse_conv/program.h"
#include "custom_ops/core/sparse_conv/schedule.h"

namespace sparse_conv {

// Images of one group: `count` of them, of which an interleaved group takes up
// to schedule.lanes and the layout of planes one.
struct ImageGroup {
  int64_t first;
  int64_t count;
};

// Writes positions [begin, end) of the grid of all planes of a group, which lie
// schedule.plane_size apart.
void FillPlanes(const Kernels& kernels, const Frame& frame,
                const Schedule& schedule, const float* images,
                const ImageGroup& group, int64_t begin, int64_t end,
                float* planes);

// Writes rows [begin, end) of a tile at `position`, whose sums are [end -
// begin, tile, lanes], to where they belong in the result's images.
// `past_cache` is a hint that these are more than a cache holds.
void StoreTile(const Kernels& kernels, const Frame& frame,
               const Schedule& schedule, const float* sums,
               const ImageGroup& group, int64_t position, int64_t begin,
               int64_t end, bool relu, bool past_cache, float* images);

// The reverse: a tile of the result's images as [end - begin, tile, lanes],
// zeros where the tile or its lanes lie outside.
void LoadTile(const Kernels& kernels, const Frame& frame,
              const Schedule& schedule, const float* images,
              const ImageGroup& group, int64_t position, int64_t begin,
              int64_t end, float* sums);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_CONVERT_H_
