// The order in which a program is computed on vectors, and its streams.
//
// A tile is `tile` neighbouring vectors of the grid. A vector is, in the layout
// of planes, kLanes neighbouring pixels of one image; in the interleaved
// layout, one pixel of kLanes images. In both, what a tap reads is the same
// vectors a fixed number of elements further on.
//
// A tile's sums are computed for a chunk of rows, block by block of planes: a
// block's pixels stay in the first cache while all rows pass over them. A list
// is what a kernel does in one call: items with `rows` rows each, whose entries
// are the same in all of these rows. Offsets and weights are read as streams.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SCHEDULE_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SCHEDULE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "custom_ops/core/sparse_conv/executable_memory.h"
#include "custom_ops/core/sparse_conv/jit.h"
#include "custom_ops/core/sparse_conv/program.h"

namespace sparse_conv {

enum Layout { kPlanes = 0, kInterleaved = 1 };

// Entries that `count` rows share. The rows lie in a tile's sums.
constexpr int kMaxItemRows = 4;
struct Item {
  int32_t count;  // of entries
  int32_t row[kMaxItemRows];
};

struct List {
  int rows;       // 1, 2 or 4
  bool first;     // its rows have no sums yet: they start from the bias
  int64_t begin;  // items
  int64_t end;
  int64_t offsets;  // where its streams begin in the chunk's
  int64_t weights;
};

// Code for a team of rows and a block of planes, in place of lists.
struct Team {
  int64_t code;     // where it begins in the chunk's
  int64_t weights;  // where its stream begins in the chunk's
};

struct Chunk {
  int64_t begin;  // rows
  int64_t end;
  int64_t weights;  // where its weights begin in the stream
  std::vector<List> lists;
  std::vector<Item> items;
  std::vector<uint32_t> offsets;  // elements of a plane, per entry of an item
  std::vector<Team> teams;        // with code, instead
  int64_t code = 0;               // where the chunk's begins in the schedule's
};

struct Schedule {
  Layout layout;
  int lanes;
  int tile;             // vectors
  bool by_rows;         // tiles begin at rows of the grid
  int64_t tile_pixels;  // positions of the grid from tile to tile
  int64_t row_tiles;    // by_rows: tiles of a row
  // All images of a batch lie one below the other.
  bool stacked;
  // Planes are made for a strip of tiles at a time.
  int64_t strip_tiles;  // at most
  int64_t reach;        // positions that taps read behind a tile
  int64_t plane_size;   // positions from plane to plane of a strip
  int64_t strip_size;   // elements of all planes of a strip
  std::vector<Chunk> chunks;
  std::vector<int32_t> order;   // of the weights: index by place in the stream
  std::vector<float> no_pixel;  // zeros: a pixel outside of the images

  const JitTarget* jit;  // null without code
  std::shared_ptr<const ExecutableMemory> code;
  int64_t code_bytes = 0;
  std::vector<float> zeros;  // a bias for the rows of a chunk

  int64_t unit() const { return layout == kInterleaved ? lanes : 1; }
  int64_t tile_size() const { return static_cast<int64_t>(tile) * lanes; }
  // Tiles of a grid, and the position of tile t.
  int64_t NumTiles(const Frame& frame) const {
    return by_rows ? frame.grid_height * row_tiles
                   : (frame.num_positions() + tile_pixels - 1) / tile_pixels;
  }
  int64_t TilePosition(const Frame& frame, int64_t t) const {
    return by_rows ? t / row_tiles * frame.pitch + t % row_tiles * tile_pixels
                   : t * tile_pixels;
  }
  int64_t bytes() const;
};

struct ScheduleOptions {
  Layout layout;
  int lanes;
  int list_tile;        // vectors of a tile, at most
  int code_tile;        // with code; a multiple of its vectors
  int64_t strip_bytes;  // planes of a strip, if they have more than
  int64_t strip_vectors;
  int64_t block_bytes;   // pixels of a block, at most
  int64_t chunk_bytes;   // sums of a tile, at most
  int64_t chunk_rows;    // at most
  bool share;            // whether items may have several rows
  const JitTarget* jit;  // null: no code
};

// Whether every position of the grid reads only itself: 1 x 1 without pads.
bool IsLocal(const Program& program);

// With options.jit, a schedule of code where there may be and can be one;
// otherwise one of lists.
Schedule MakeSchedule(const Program& program, const ScheduleOptions& options,
                      const SparseConvPool* pool);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SCHEDULE_H_
