#include "custom_ops/core/sparse_conv/sparse_conv_cuda_build.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <tuple>

namespace sparse_conv {
namespace cuda {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A weight as its set sees it.
struct Entry {
  int32_t channel;  // of the unit: the first
  int32_t unit_y;   // from the smallest dy and dx of the problem
  int32_t unit_x;
  int32_t part;  // channel within the unit
  int32_t shift_y;
  int32_t shift_x;
  int32_t list;
  int32_t filter;  // of the list
  int32_t index;

  auto Key() const {
    return std::tie(channel, unit_y, unit_x, part, shift_y, shift_x, list,
                    filter);
  }
  bool SameUnit(const Entry& other) const {
    return channel == other.channel && unit_y == other.unit_y &&
           unit_x == other.unit_x;
  }
  bool SameColumn(const Entry& other) const {
    return SameUnit(other) && part == other.part && shift_y == other.shift_y &&
           shift_x == other.shift_x;
  }
};

// The entries [begin, end) of one list in one column.
struct ListColumn {
  int32_t offset;
  size_t begin;
  size_t end;
};

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

// --- Chunks ------------------------------------------------------------------

// Writes the chunks of sets, one after the other.
class Writer {
 public:
  Writer(const Variant& variant, const Part& part, int32_t least_y,
         int32_t least_x, Tables* tables)
      : variant_(variant),
        part_(part),
        least_y_(least_y),
        least_x_(least_x),
        lists_(NumLists(variant.kind, variant.tile_filters)),
        record_bytes_(RecordBytes(variant.kind, variant.tile_filters)),
        record_columns_(variant.kind == kDirect ? 1
                        : variant.kind == kTf32 ? Fragment<kTf32>::kColumns
                                                : Fragment<kBf16>::kColumns),
        tables_(tables) {}

  // Entries in ascending order. False where the stream gets too long.
  bool WriteSet(const std::vector<Entry>& entries, const Set* sets, Set* set) {
    entries_ = &entries;
    set_ = static_cast<int32_t>(set - sets);
    set->first_chunk = static_cast<int32_t>(tables_->chunks.size());
    for (size_t begin = 0; begin < entries.size();) {
      size_t end = begin;
      while (end < entries.size() && entries[end].SameUnit(entries[begin])) {
        ++end;
      }
      // A unit begins a new chunk rather than lie in two, if it can.
      if (num_units_ > 0 &&
          (num_units_ == 1 << part_.log2_units || !Fits(begin, end))) {
        Flush();
      }
      AddUnit(begin, end);
      begin = end;
    }
    if (num_units_ > 0) Flush();
    set->num_chunks =
        static_cast<int32_t>(tables_->chunks.size()) - set->first_chunk;
    return tables_->stream.size() / 16 <
               static_cast<size_t>(std::numeric_limits<int32_t>::max()) &&
           tables_->stream.size() / WeightBytes() <
               static_cast<size_t>(std::numeric_limits<int32_t>::max());
  }

  int64_t num_records() const { return num_records_; }
  int64_t num_unit_copies() const { return num_unit_copies_; }

 private:
  size_t WeightBytes() const { return variant_.kind == kBf16 ? 2 : 4; }

  // Calls add(list, begin, end) for every list of every column.
  template <typename Add>
  void ForColumns(size_t begin, size_t end, const Add& add) const {
    const std::vector<Entry>& entries = *entries_;
    for (size_t i = begin; i < end;) {
      size_t j = i + 1;
      while (j < end && entries[j].list == entries[i].list &&
             entries[j].SameColumn(entries[i])) {
        ++j;
      }
      add(entries[i].list, i, j);
      i = j;
    }
  }

  // Whether the chunk has room for these entries too.
  bool Fits(size_t begin, size_t end) const {
    int64_t counts[kFilters];
    for (size_t l = 0; l < lists_.size(); ++l) {
      counts[l] = static_cast<int64_t>(lists_[l].size());
    }
    ForColumns(begin, end, [&](int list, size_t, size_t) { ++counts[list]; });
    int64_t bytes = BoundsBytes(static_cast<int>(lists_.size())) +
                    4 * int64_t{part_.patch_floats};
    for (size_t l = 0; l < lists_.size(); ++l) {
      bytes += DivideUp(counts[l], record_columns_) * record_bytes_;
    }
    return DivideUp(bytes, 16) * 16 <= kStageBytes;
  }

  void AddUnit(size_t begin, size_t end) {
    const std::vector<Entry>& entries = *entries_;
    BeginUnit(entries[begin]);
    for (size_t i = begin; i < end;) {
      size_t j = i + 1;
      while (j < end && entries[j].SameColumn(entries[i])) ++j;
      if (!Fits(i, j)) {
        Flush();
        BeginUnit(entries[begin]);
      }
      const Entry& entry = entries[i];
      const int32_t offset =
          (num_units_ - 1) * part_.unit_pitch + entry.part +
          (entry.shift_y * part_.cols + entry.shift_x) * part_.pixel_pitch;
      ForColumns(i, j, [&](int list, size_t first, size_t last) {
        lists_[list].push_back({offset, first, last});
      });
      i = j;
    }
  }

  void BeginUnit(const Entry& entry) {
    ++num_units_;
    ++num_unit_copies_;
    tables_->units.push_back(
        {entry.channel, least_y_ + entry.unit_y, least_x_ + entry.unit_x});
  }

  void Flush() {
    std::vector<char>& stream = tables_->stream;
    const size_t first = stream.size();
    const int num_lists = static_cast<int>(lists_.size());
    const size_t first_record = first + BoundsBytes(num_lists);
    stream.resize(first_record);
    int32_t bound = 0;
    for (int l = 0; l < num_lists; ++l) {
      WriteList(l);
      bound =
          static_cast<int32_t>((stream.size() - first_record) / record_bytes_);
      std::memcpy(&stream[first + 4 * (l + 1)], &bound, 4);
      lists_[l].clear();
    }
    num_records_ += bound;
    stream.resize(DivideUp(static_cast<int64_t>(stream.size()), 16) * 16);
    tables_->chunks.push_back(
        {static_cast<int32_t>(tables_->units.size()) - num_units_, num_units_,
         static_cast<int32_t>(first / 16),
         static_cast<int32_t>((stream.size() - first) / 16), set_});
    num_units_ = 0;
  }

  void WriteList(int list) {
    std::vector<ListColumn>& columns = lists_[list];
    if (variant_.kind != kDirect) SpreadBanks(&columns);
    for (size_t i = 0; i < columns.size(); i += record_columns_) {
      const size_t record = tables_->stream.size();
      tables_->stream.resize(record + record_bytes_);
      for (int slot = 0; slot < record_columns_; ++slot) {
        // A short record repeats its last column, with weights of 0.
        const size_t c = std::min(i + slot, columns.size() - 1);
        const ListColumn& column = columns[c];
        std::memcpy(&tables_->stream[record + 4 * slot], &column.offset, 4);
        if (c != i + slot) continue;
        for (size_t k = column.begin; k < column.end; ++k) {
          const Entry& entry = (*entries_)[k];
          const int byte = variant_.kind == kDirect ? 4
                           : variant_.kind == kTf32
                               ? WeightByte<kTf32>(slot, entry.filter)
                               : WeightByte<kBf16>(slot, entry.filter);
          tables_->slots[entry.index] =
              static_cast<int32_t>((record + byte) / WeightBytes());
        }
      }
    }
  }

  // Four lanes read four columns of 8 neighbouring pixels at a time: their
  // banks differ best where offsets do by 8, or by 1 where pixels do by 4.
  void SpreadBanks(std::vector<ListColumn>* columns) const {
    constexpr int kClasses = 4;
    const int width = part_.pixel_pitch == 1 ? 8 : 1;
    std::vector<ListColumn> classes[kClasses];
    for (const ListColumn& column : *columns) {
      classes[column.offset / width % kClasses].push_back(column);
    }
    const int slots_of_lane = record_columns_ / 4;
    const size_t size = columns->size();
    columns->clear();
    size_t next[kClasses] = {};
    // Slots in the order of the instruction's reads: all lanes' first slots,
    // then all their second ones.
    std::vector<ListColumn> record;
    while (columns->size() < size) {
      record.clear();
      const size_t count =
          std::min<size_t>(record_columns_, size - columns->size());
      for (size_t i = 0; i < count; ++i) {
        int best = static_cast<int>(i % kClasses);
        for (int j = 0; next[best] == classes[best].size(); ++j) best = j;
        record.push_back(classes[best][next[best]++]);
      }
      if (static_cast<int>(count) < record_columns_) {
        columns->insert(columns->end(), record.begin(), record.end());
        break;
      }
      for (int lane = 0; lane < 4; ++lane) {
        for (int i = 0; i < slots_of_lane; ++i) {
          columns->push_back(record[i * 4 + lane]);
        }
      }
    }
  }

  const Variant variant_;
  const Part& part_;
  const int32_t least_y_;
  const int32_t least_x_;
  std::vector<std::vector<ListColumn>> lists_;
  const int record_bytes_;
  const int record_columns_;
  Tables* const tables_;
  const std::vector<Entry>* entries_ = nullptr;
  int32_t set_ = 0;
  int num_units_ = 0;
  int64_t num_records_ = 0;
  int64_t num_unit_copies_ = 0;
};

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
  for (int log2 = 5; log2 >= 0; --log2) {
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
