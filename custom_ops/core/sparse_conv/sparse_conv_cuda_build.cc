#include "custom_ops/core/sparse_conv/sparse_conv_cuda_build.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_writer.h"

namespace sparse_conv {
namespace cuda {
namespace {

// --- Pixels ------------------------------------------------------------------

struct Tile {
  int64_t images, height, width;
  int64_t blocks;  // for all images
};

// The shape of at most `pixels` pixels with the least work: blocks, and what
// they copy.
Tile ChooseTile(int64_t height, int64_t width, int64_t span_y, int64_t span_x,
                int64_t pixels, int64_t batch) {
  batch = std::max<int64_t>(batch, 1);
  if (height * width <= pixels) {
    const int64_t images = std::min(batch, pixels / (height * width));
    return {images, height, width, DivideUp(batch, images)};
  }
  constexpr double kCopyWeight = 0.25;
  Tile best = {};
  double least = std::numeric_limits<double>::infinity();
  for (int64_t w = std::min(width, pixels); w >= 1; --w) {
    const int64_t h = std::min(height, pixels / w);
    const int64_t blocks = DivideUp(height, h) * DivideUp(width, w) * batch;
    const double work =
        static_cast<double>(blocks) *
        (pixels + kCopyWeight * (h + span_y) * static_cast<double>(w + span_x));
    if (work < least) {
      least = work;
      best = {1, h, w, blocks};
    }
  }
  return best;
}

struct Range {
  int32_t least = 0;
  int32_t span = 0;
};

template <typename Get>
Range RangeOf(const Problem& problem, const Get& get) {
  if (problem.weights.empty()) return {};
  int32_t least = get(problem.weights[0]);
  int32_t most = least;
  for (const Weight& weight : problem.weights) {
    least = std::min(least, get(weight));
    most = std::max(most, get(weight));
  }
  return {least, most - least};
}

Range RowsOf(const Problem& problem) {
  return RangeOf(problem, [](const Weight& weight) { return weight.dy; });
}
Range ColumnsOf(const Problem& problem) {
  return RangeOf(problem, [](const Weight& weight) { return weight.dx; });
}

// --- Filters -----------------------------------------------------------------

// Filters by sets: those with weights first, so that dead ones cost nothing.
std::vector<Set> SetsOf(const Problem& problem, KernelKind kind) {
  std::vector<int64_t> counts(problem.output.channels);
  for (const Weight& weight : problem.weights) ++counts[weight.filter];
  std::vector<int32_t> order(problem.output.channels);
  std::iota(order.begin(), order.end(), 0);
  std::stable_partition(order.begin(), order.end(),
                        [&](int32_t filter) { return counts[filter] > 0; });
  std::vector<Set> sets(DivideUp(problem.output.channels, kFilters));
  for (size_t s = 0; s < sets.size(); ++s) {
    Set& set = sets[s];
    std::fill_n(set.filters, kFilters, -1);
    const size_t first = s * kFilters;
    const size_t count = std::min<size_t>(kFilters, order.size() - first);
    if (kind != kDirect) {
      std::copy_n(order.begin() + first, count, set.filters);
      continue;
    }
    // Long filters and short ones to every warp, back and forth.
    std::stable_sort(
        order.begin() + first, order.begin() + first + count,
        [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
    constexpr int kWarps = 8;
    for (size_t i = 0; i < count; ++i) {
      const size_t round = i / kWarps;
      const size_t warp = round % 2 == 0 ? i % kWarps : kWarps - 1 - i % kWarps;
      set.filters[warp * (kFilters / kWarps) + round] = order[first + i];
    }
  }
  return sets;
}

// --- Entries -----------------------------------------------------------------

// Entries of each set, in ascending order.
std::vector<std::vector<Entry>> EntriesOf(const Problem& problem,
                                          const Variant& variant,
                                          const std::vector<Set>& sets,
                                          int unit_channels, int32_t least_y,
                                          int32_t least_x) {
  const int list_filters =
      kFilters / NumLists(variant.kind, variant.tile_filters);
  struct PlaceInSet {
    int32_t set;
    int32_t filter;
  };
  std::vector<PlaceInSet> places(problem.output.channels);
  for (size_t s = 0; s < sets.size(); ++s) {
    for (int f = 0; f < kFilters; ++f) {
      const int32_t filter = sets[s].filters[f];
      if (filter >= 0) places[filter] = {static_cast<int32_t>(s), f};
    }
  }
  std::vector<std::vector<Entry>> entries(sets.size());
  const int32_t stride_y = static_cast<int32_t>(problem.stride_height);
  const int32_t stride_x = static_cast<int32_t>(problem.stride_width);
  for (const Weight& weight : problem.weights) {
    const PlaceInSet place = places[weight.filter];
    const int32_t y = weight.dy - least_y;
    const int32_t x = weight.dx - least_x;
    const bool gathered = variant.is_gathered;
    entries[place.set].push_back(
        {weight.channel / unit_channels * unit_channels,
         gathered ? y : y % stride_y, gathered ? x : x % stride_x,
         weight.channel % unit_channels, gathered ? 0 : y / stride_y,
         gathered ? 0 : x / stride_x, place.filter / list_filters,
         place.filter % list_filters, weight.index});
  }
  for (std::vector<Entry>& of_set : entries) {
    std::sort(of_set.begin(), of_set.end(),
              [](const Entry& a, const Entry& b) { return a.Key() < b.Key(); });
  }
  return entries;
}

// Sets the sizes of patches: as many units as leave room for their records.
bool ChooseUnits(const std::vector<std::vector<Entry>>& entries,
                 const Variant& variant, Part* part) {
  double num_units = 1;
  double num_columns = 0;
  for (const std::vector<Entry>& of_set : entries) {
    for (size_t i = 0; i < of_set.size(); ++i) {
      num_units += i == 0 || !of_set[i].SameUnit(of_set[i - 1]);
      num_columns += i == 0 || of_set[i].list != of_set[i - 1].list ||
                     !of_set[i].SameColumn(of_set[i - 1]);
    }
  }
  const double column_bytes =
      static_cast<double>(RecordBytes(variant.kind, variant.tile_filters)) /
      (variant.kind == kDirect ? 1
       : variant.kind == kTf32 ? 8
                               : 16);
  const double unit_bytes = 1.2 * num_columns * column_bytes / num_units;
  const int64_t pixels = int64_t{part->tile_images} * part->rows * part->cols;
  int log2 = 0;
  while (1 << log2 < kMaxUnits) ++log2;
  for (; log2 >= 0; --log2) {
    const int units = 1 << log2;
    int64_t floats;
    if (part->unit_channels == 4) {
      // An odd multiple of 4: eight neighbouring pixels in different banks.
      part->pixel_pitch = 4 * (units | 1);
      part->unit_pitch = 4;
      floats = pixels * part->pixel_pitch;
    } else {
      part->pixel_pitch = 1;
      const int64_t plane = DivideUp(pixels - 8, 32) * 32 + 8;
      if (plane * units > kStageBytes / 4) continue;
      part->unit_pitch = static_cast<int32_t>(plane);
      floats = plane * units;
    }
    if (log2 > 0 && units > num_units) continue;
    const double wanted = 4.0 * static_cast<double>(floats) +
                          (log2 == 0 ? 0 : units * unit_bytes);
    constexpr int64_t kLeastStream = 6 << 10;  // any column's records
    if (wanted > kStageBytes - kLeastStream) continue;
    part->log2_units = log2;
    part->patch_floats = static_cast<int32_t>(floats);
    return true;
  }
  return false;
}

// --- Costs -------------------------------------------------------------------
//
// Estimates, in cycles of a multiprocessor of compute capability 9.0, of which
// there are 132; not measured.

constexpr double kMultiprocessors = 132;
constexpr double kTensorShare = 0.6;   // of mma.sync in the peak of TF32
constexpr double kL2Bytes = 40;        // a cycle
constexpr double kCopiesACycle = 10;   // issued, with their addresses
constexpr double kBlockCycles = 1500;  // begin and end
constexpr double kChunkCycles = 100;   // a barrier

double BlockCycles(const Variant& variant, int pixel_steps, double records) {
  // One read of shared memory a cycle.
  if (variant.kind == kDirect) return records * (2 * pixel_steps + 1);
  const double tile = variant.tile_filters;
  const double columns = variant.kind == kTf32 ? 1 : 2;
  const double reads = 4 * columns * pixel_steps + tile / 4 + columns;
  const double products = pixel_steps * tile / 8 / kTensorShare;
  return records * 4 * std::max(reads, products);
}

}  // namespace

int ChoosePixelSteps(const Problem& problem, int64_t batch) {
  const int64_t sets = DivideUp(problem.output.channels, kFilters);
  int best = 1;
  double least = std::numeric_limits<double>::infinity();
  for (int steps = kMaxPixelSteps; steps >= 1; --steps) {
    const Tile tile = ChooseTile(problem.height, problem.width, 0, 0,
                                 int64_t{steps} * kPixelStep, batch);
    // Weights are read once a block, whatever its pixels.
    const double work = std::max(1.0, static_cast<double>(tile.blocks * sets) /
                                          (2 * kMultiprocessors)) *
                        (steps + 0.75);
    if (work < least) {
      least = work;
      best = steps;
    }
  }
  return best;
}

bool Build(const Problem& problem, const Variant& variant, int pixel_steps,
           int64_t batch, Part* part, Tables* tables, Cost* cost) {
  *part = {};
  const Images& input = problem.input;
  const Images& output = problem.output;
  part->height = static_cast<int32_t>(input.height);
  part->width = static_cast<int32_t>(input.width);
  part->in_image = input.size();
  part->in_y = static_cast<int32_t>(input.y);
  part->in_x = static_cast<int32_t>(input.x);
  part->in_channel = static_cast<int32_t>(input.channel);
  part->stride_height = static_cast<int32_t>(problem.stride_height);
  part->stride_width = static_cast<int32_t>(problem.stride_width);
  part->is_nhwc = input.channel == 1 && output.channel == 1;
  part->out_height = static_cast<int32_t>(problem.height);
  part->out_width = static_cast<int32_t>(problem.width);
  part->out_image = output.size();
  part->out_first = static_cast<int32_t>(problem.first_y * output.y +
                                         problem.first_x * output.x);
  part->out_y = static_cast<int32_t>(problem.step_y * output.y);
  part->out_x = static_cast<int32_t>(problem.step_x * output.x);
  part->out_channel = static_cast<int32_t>(output.channel);

  const Range rows = RowsOf(problem);
  const Range columns = ColumnsOf(problem);
  const int64_t span_y =
      variant.is_gathered ? 0 : rows.span / problem.stride_height;
  const int64_t span_x =
      variant.is_gathered ? 0 : columns.span / problem.stride_width;
  const Tile tile = ChooseTile(problem.height, problem.width, span_y, span_x,
                               int64_t{pixel_steps} * kPixelStep, batch);
  // Before they are multiplied.
  if (span_y > kStageBytes || span_x > kStageBytes) return false;
  part->tile_images = static_cast<int32_t>(tile.images);
  part->tile_height = static_cast<int32_t>(tile.height);
  part->tile_width = static_cast<int32_t>(tile.width);
  part->tiles_y = static_cast<int32_t>(DivideUp(problem.height, tile.height));
  part->tiles_x = static_cast<int32_t>(DivideUp(problem.width, tile.width));
  part->rows = static_cast<int32_t>(tile.height + span_y);
  part->cols = static_cast<int32_t>(tile.width + span_x);
  part->unit_channels =
      variant.kind != kDirect && part->is_nhwc && input.channels % 4 == 0 ? 4
                                                                          : 1;
  std::vector<Set> sets = SetsOf(problem, variant.kind);
  const std::vector<std::vector<Entry>> entries = EntriesOf(
      problem, variant, sets, part->unit_channels, rows.least, columns.least);
  if (!ChooseUnits(entries, variant, part)) return false;
  part->num_sets = static_cast<int32_t>(sets.size());
  part->sets = static_cast<int64_t>(tables->sets.size());

  const double blocks_of_set = static_cast<double>(tile.blocks);
  const double patch_pixels =
      static_cast<double>(tile.images) * part->rows * part->cols;
  double cycles = 0;
  const size_t num_chunks = tables->chunks.size();
  Writer writer(variant, *part, rows.least, columns.least, tables);
  for (size_t s = 0; s < sets.size(); ++s) {
    const int64_t records = writer.num_records();
    const int64_t copies = writer.num_unit_copies();
    const size_t stream = tables->stream.size();
    if (!writer.WriteSet(entries[s], sets.data(), &sets[s])) return false;
    const double new_records =
        static_cast<double>(writer.num_records() - records);
    const double items =
        static_cast<double>(writer.num_unit_copies() - copies) * patch_pixels;
    const double copied = 4.0 * part->unit_channels * items +
                          static_cast<double>(tables->stream.size() - stream);
    cycles +=
        blocks_of_set * (kBlockCycles + kChunkCycles * sets[s].num_chunks +
                         BlockCycles(variant, pixel_steps, new_records) +
                         std::max(items / kCopiesACycle, copied / kL2Bytes));
    tables->sets.push_back(sets[s]);
  }
  part->num_chunks = static_cast<int32_t>(tables->chunks.size() - num_chunks);
  const double blocks = blocks_of_set * static_cast<double>(sets.size());
  cost->cycles += cycles / std::min(blocks, kMultiprocessors);
  cost->products += static_cast<double>(writer.num_records()) *
                    (variant.kind == kDirect ? 1
                     : variant.kind == kTf32 ? 8 * variant.tile_filters
                                             : 16 * variant.tile_filters);
  cost->blocks += static_cast<int64_t>(blocks);
  return true;
}

}  // namespace cuda
}  // namespace sparse_conv
