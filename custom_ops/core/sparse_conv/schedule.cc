#include "custom_ops/core/sparse_conv/schedule.h"

#include <algorithm>
#include <atomic>

#include "custom_ops/core/sparse_conv/parallel.h"
#include "custom_ops/core/sparse_conv/team_maker.h"

namespace sparse_conv {
namespace {

// Non-zeros that code is made for: some 10 bytes each.
constexpr int64_t kMostCoded = int64_t{4} << 20;

int64_t CeilOfRatio(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Chooses the tile of lists: the fewest vectors, each tile counting as one and
// a half more.
void SetTiles(const Program& program, int max_tile, Schedule* schedule) {
  const int64_t vector_pixels =
      schedule->layout == kInterleaved ? 1 : schedule->lanes;
  double best = 0;
  for (int tile = max_tile; tile >= 1; --tile) {
    for (const bool by_rows : {false, true}) {
      const int64_t pixels = tile * vector_pixels;
      const int64_t row_tiles = CeilOfRatio(program.grid_width, pixels);
      const int64_t tiles = by_rows
                                ? program.grid_height * row_tiles
                                : CeilOfRatio(program.num_positions(), pixels);
      const double cost = static_cast<double>(tiles) * (tile + 1.5);
      if (schedule->tile != 0 && cost >= best) continue;
      best = cost;
      schedule->tile = tile;
      schedule->by_rows = by_rows;
      schedule->tile_pixels = pixels;
      schedule->row_tiles = row_tiles;
    }
    if (schedule->stacked) return;
  }
}

// Tiles of code: equal parts of a strip.
void SetCodeTiles(const Program& program, int64_t strip_positions, int max_tile,
                  Schedule* schedule) {
  const int step = schedule->jit->vectors;
  const int64_t pixels = schedule->lanes;
  int64_t positions = strip_positions;
  if (!schedule->stacked) {
    const int64_t strips =
        CeilOfRatio(program.num_positions() * 4, strip_positions * 5);
    positions =
        CeilOfRatio(program.num_positions(), std::max(int64_t{1}, strips));
  }
  const int64_t vectors = CeilOfRatio(positions, pixels);
  const int64_t tiles = CeilOfRatio(vectors, max_tile);
  schedule->tile =
      static_cast<int>(CeilOfRatio(CeilOfRatio(vectors, tiles), step) * step);
  schedule->tile_pixels = schedule->tile * pixels;
}

// The strip of about strip_positions, or of all tiles if that is little more.
void SetStrip(const Program& program, int64_t strip_positions,
              Schedule* schedule) {
  int64_t tiles = std::max(int64_t{1}, strip_positions / schedule->tile_pixels);
  if (!schedule->stacked) {
    const int64_t all = schedule->NumTiles(program);
    const int64_t most =
        std::max(int64_t{1}, strip_positions * 5 / 4 / schedule->tile_pixels);
    const int64_t strips = CeilOfRatio(all, most);
    tiles = CeilOfRatio(all, strips);
    if (schedule->by_rows) {
      tiles = CeilOfRatio(tiles, schedule->row_tiles) * schedule->row_tiles;
    }
  }
  schedule->strip_tiles = tiles;
  const int64_t end = schedule->TilePosition(program, tiles - 1) +
                      schedule->tile_pixels + schedule->reach;
  // An odd number of cache lines: planes are spread over the sets of a cache.
  constexpr int64_t kLine = 64 / sizeof(float);
  schedule->plane_size = (CeilOfRatio(end, kLine) | 1) * kLine;
  schedule->strip_size =
      program.num_planes() * schedule->plane_size * schedule->unit();
}

// Planes whose pixels for one tile fill `bytes`.
int64_t PlanesOfBlock(const Program& program, const Schedule& schedule,
                      int64_t bytes) {
  // What the taps read of one plane: a run of pixels for each distinct row.
  std::vector<int64_t> shifts(program.shifts.begin(), program.shifts.end());
  std::sort(shifts.begin(), shifts.end());
  int64_t pixels = 0;
  int64_t end = 0;
  for (const int64_t shift : shifts) {
    const int64_t begin = std::max(shift, end);
    end = shift + schedule.tile_pixels;
    pixels += std::max(int64_t{0}, end - begin);
  }
  const int64_t plane_bytes =
      pixels * schedule.unit() * static_cast<int64_t>(sizeof(float));
  return std::max(int64_t{1}, bytes / std::max(int64_t{1}, plane_bytes));
}

int64_t KeyOf(const Program& program, const Entry& entry) {
  return entry.tap * program.num_planes() + entry.plane;
}

// Runs of entries, ascending, of the rows of one item.
struct Runs {
  const Entry* begin[kMaxItemRows];
  const Entry* end[kMaxItemRows];
};

// Calls common(entries[rows]) for entries that all rows have, and
// rest(row, entry) for others.
template <typename Common, typename Rest>
void Merge(const Program& program, int rows, Runs runs, const Common& common,
           const Rest& rest) {
  for (;;) {
    int64_t least = INT64_MAX;
    int64_t most = INT64_MIN;
    for (int r = 0; r < rows; ++r) {
      const int64_t key = runs.begin[r] == runs.end[r]
                              ? INT64_MAX
                              : KeyOf(program, *runs.begin[r]);
      least = std::min(least, key);
      most = std::max(most, key);
    }
    if (least == INT64_MAX) return;
    if (least == most) {
      common(runs.begin);
      for (int r = 0; r < rows; ++r) ++runs.begin[r];
      continue;
    }
    for (int r = 0; r < rows; ++r) {
      if (runs.begin[r] != runs.end[r] &&
          KeyOf(program, *runs.begin[r]) == least) {
        rest(r, *runs.begin[r]);
        ++runs.begin[r];
      }
    }
  }
}

// How many rows to take together: 4 or 2 if nearly all entries are in all of
// them, else 1.
int RowsOfItem(const Program& program, const std::vector<int32_t>& live) {
  for (const int rows : {4, 2}) {
    int64_t shared = 0;
    for (size_t i = 0; i + rows <= live.size(); i += rows) {
      Runs runs;
      for (int r = 0; r < rows; ++r) {
        runs.begin[r] = program.entries.data() + program.rows[live[i + r]];
        runs.end[r] = program.entries.data() + program.rows[live[i + r] + 1];
      }
      Merge(
          program, rows, runs, [&](const Entry* const*) { shared += rows; },
          [](int, const Entry&) {});
    }
    if (shared * 10 >= program.num_entries() * 9) return rows;
  }
  return 1;
}

// The streams of a chunk of rows.
class ChunkMaker {
 public:
  ChunkMaker(const Program& program, int64_t plane_size, int64_t block_planes,
             int item_rows, int32_t* order, Chunk* chunk)
      : program_(program),
        plane_size_(plane_size),
        block_planes_(block_planes),
        order_(order),
        chunk_(chunk),
        num_rows_(chunk->end - chunk->begin) {
    SortByBlock();
    SetTeams(item_rows);
    started_.assign(num_rows_, false);
    single_.resize(num_rows_);
    for (block_ = 0; block_ < blocks_; ++block_) {
      // Rows that have begun come before those that begin: so none is twice in
      // a list of this block.
      for (const bool first : {false, true}) MakeShared(item_rows, first);
      for (const bool first : {false, true}) MakeSingle(first);
    }
  }

 private:
  // Entries of row r in block b: sorted_[bins_[b * num_rows_ + r]] to the next.
  void SortByBlock() {
    blocks_ =
        std::max(int64_t{1}, CeilOfRatio(program_.num_planes(), block_planes_));
    bins_.assign(blocks_ * num_rows_ + 1, 0);
    const auto visit = [&](const auto& f) {
      for (int64_t r = 0; r < num_rows_; ++r) {
        for (int64_t k = program_.rows[chunk_->begin + r];
             k < program_.rows[chunk_->begin + r + 1]; ++k) {
          const Entry& entry = program_.entries[k];
          f(entry.plane / block_planes_ * num_rows_ + r, entry);
        }
      }
    };
    visit([&](int64_t bin, const Entry&) { ++bins_[bin + 1]; });
    for (size_t b = 1; b < bins_.size(); ++b) bins_[b] += bins_[b - 1];
    std::vector<int64_t> next(bins_.begin(), bins_.end() - 1);
    sorted_.resize(bins_.back());
    visit(
        [&](int64_t bin, const Entry& entry) { sorted_[next[bin]++] = entry; });
  }

  // Groups of item_rows rows that have entries at all; others are single.
  void SetTeams(int item_rows) {
    is_single_.assign(num_rows_, true);
    if (item_rows == 1) return;
    std::vector<int32_t> team;
    for (int64_t r = 0; r < num_rows_; ++r) {
      if (program_.rows[chunk_->begin + r] ==
          program_.rows[chunk_->begin + r + 1]) {
        continue;
      }
      team.push_back(static_cast<int32_t>(r));
      if (static_cast<int>(team.size()) < item_rows) continue;
      for (const int32_t row : team) is_single_[row] = false;
      teams_.insert(teams_.end(), team.begin(), team.end());
      team.clear();
    }
  }

  const Entry* Begin(int64_t r) const {
    return sorted_.data() + bins_[block_ * num_rows_ + r];
  }
  const Entry* End(int64_t r) const { return Begin(r + 1); }

  void Place(const Entry* const* entries, int rows) {
    chunk_->offsets.push_back(static_cast<uint32_t>(
        entries[0]->plane * plane_size_ + program_.shifts[entries[0]->tap]));
    for (int i = 0; i < rows; ++i) order_[placed_++] = entries[i]->index;
  }

  void Open(int rows, bool first) {
    const int64_t items = static_cast<int64_t>(chunk_->items.size());
    chunk_->lists.push_back({rows, first, items, items,
                             static_cast<int64_t>(chunk_->offsets.size()),
                             placed_});
  }
  void Close() {
    List& list = chunk_->lists.back();
    list.end = static_cast<int64_t>(chunk_->items.size());
    if (list.begin == list.end) chunk_->lists.pop_back();
  }

  // Entries that all rows of a team have. The team begins with its first ones.
  void MakeShared(int rows, bool first) {
    Open(rows, first);
    for (size_t t = 0; t < teams_.size(); t += rows) {
      const int32_t* team = &teams_[t];
      if (started_[team[0]] == first) continue;
      Item item = {};
      Runs runs;
      bool empty = true;
      for (int i = 0; i < rows; ++i) {
        item.row[i] = team[i];
        single_[team[i]].clear();
        runs.begin[i] = Begin(team[i]);
        runs.end[i] = End(team[i]);
        empty = empty && runs.begin[i] == runs.end[i];
      }
      if (empty) continue;
      Merge(
          program_, rows, runs,
          [&](const Entry* const* entries) {
            ++item.count;
            Place(entries, rows);
          },
          [&](int i, const Entry& entry) {
            single_[team[i]].push_back(entry);
          });
      if (item.count == 0 && !first) continue;
      chunk_->items.push_back(item);
      for (int i = 0; i < rows; ++i) started_[team[i]] = true;
    }
    Close();
  }

  // All other entries, and rows without any, which are begun at last.
  void MakeSingle(bool first) {
    struct Single {
      int32_t row;
      const Entry* begin;
      const Entry* end;
    };
    std::vector<Single> singles;
    for (int64_t r = 0; r < num_rows_; ++r) {
      if (started_[r] == first) continue;
      const Entry* begin = Begin(r);
      const Entry* end = End(r);
      if (!is_single_[r]) {
        begin = single_[r].data();
        end = begin + single_[r].size();
      }
      if (begin == end && (!first || block_ + 1 < blocks_)) continue;
      singles.push_back({static_cast<int32_t>(r), begin, end});
    }
    // Loops of equal length follow each other: their ends are predicted.
    std::stable_sort(singles.begin(), singles.end(),
                     [](const Single& a, const Single& b) {
                       return a.end - a.begin < b.end - b.begin;
                     });
    Open(1, first);
    for (const Single& single : singles) {
      Item item = {};
      item.count = static_cast<int32_t>(single.end - single.begin);
      item.row[0] = single.row;
      chunk_->items.push_back(item);
      for (const Entry* entry = single.begin; entry != single.end; ++entry) {
        Place(&entry, 1);
      }
      started_[single.row] = true;
    }
    Close();
    for (const Single& single : singles) single_[single.row].clear();
  }

  const Program& program_;
  const int64_t plane_size_;
  const int64_t block_planes_;
  int32_t* const order_;  // of this chunk
  Chunk* const chunk_;
  const int64_t num_rows_;
  int64_t blocks_ = 0;
  int64_t block_ = 0;
  int64_t placed_ = 0;
  std::vector<Entry> sorted_;
  std::vector<int64_t> bins_;
  std::vector<int32_t> teams_;
  std::vector<bool> is_single_;
  std::vector<bool> started_;
  std::vector<std::vector<Entry>> single_;  // what teams left of this block
};

}  // namespace

int64_t Schedule::bytes() const {
  int64_t bytes = static_cast<int64_t>(order.size() * sizeof(order[0]));
  bytes += code_bytes;
  for (const Chunk& chunk : chunks) {
    bytes += static_cast<int64_t>(chunk.items.size() * sizeof(Item) +
                                  chunk.lists.size() * sizeof(List) +
                                  chunk.offsets.size() * sizeof(uint32_t) +
                                  chunk.teams.size() * sizeof(Team));
  }
  return bytes;
}

bool IsLocal(const Program& program) {
  for (const int32_t shift : program.shifts) {
    if (shift != 0) return false;
  }
  for (const Phase& phase : program.source_phases) {
    if (phase.first_y < 0 || phase.first_x < 0) return false;
  }
  return true;
}

namespace {

// Whether images take no more positions one below the other than alone; with
// code, also if one alone has so few that code would hardly be used again.
bool IsStacked(const Program& program, const ScheduleOptions& options) {
  const bool gapless =
      program.num_positions() == program.image_rows * program.pitch;
  const bool few =
      options.jit != nullptr &&
      program.num_positions() <= options.strip_vectors * options.lanes * 2 / 3;
  return options.layout == kPlanes && (gapless || few);
}

}  // namespace

Schedule MakeSchedule(const Program& program, const ScheduleOptions& options,
                      const SparseConvPool* pool) {
  Schedule schedule = {};
  schedule.layout = options.layout;
  schedule.lanes = options.lanes;
  schedule.stacked = IsStacked(program, options);
  schedule.reach =
      *std::max_element(program.shifts.begin(), program.shifts.end());
  const int64_t strip_positions =
      std::max(options.lanes * int64_t{4},
               options.strip_bytes / static_cast<int64_t>(sizeof(float)) /
                       (program.num_planes() * schedule.unit()) -
                   schedule.reach);
  const auto set_tiles = [&](const JitTarget* jit) {
    schedule.jit = jit;
    if (jit == nullptr) {
      SetTiles(program, options.list_tile, &schedule);
    } else {
      SetCodeTiles(program, strip_positions, options.code_tile, &schedule);
    }
    SetStrip(program, strip_positions, &schedule);
  };
  set_tiles(program.num_entries() <= kMostCoded ? options.jit : nullptr);
  // Displacements have 32 bits.
  if (schedule.jit != nullptr && schedule.strip_size >= int64_t{1} << 28) {
    schedule.tile = 0;
    set_tiles(nullptr);
  }
  schedule.no_pixel.resize(
      std::max(program.source.channels, program.result.channels));

  std::vector<int32_t> live;
  for (int64_t r = 0; r < program.num_rows(); ++r) {
    if (program.rows[r] != program.rows[r + 1]) {
      live.push_back(static_cast<int32_t>(r));
    }
  }
  const int item_rows =
      options.share && schedule.jit == nullptr ? RowsOfItem(program, live) : 1;
  const int64_t block_planes =
      PlanesOfBlock(program, schedule, options.block_bytes);

  const int64_t row_bytes =
      schedule.tile * schedule.lanes * static_cast<int64_t>(sizeof(float));
  int64_t chunk_rows =
      std::min(options.chunk_bytes / row_bytes, options.chunk_rows);
  chunk_rows = std::max(int64_t{16}, chunk_rows);
  // Even chunks, of whole vectors of channels.
  const int64_t rows = program.num_rows();
  const int64_t num_chunks = CeilOfRatio(rows, chunk_rows);
  chunk_rows = CeilOfRatio(CeilOfRatio(rows, num_chunks), 16) * 16;
  schedule.order.resize(program.num_entries());
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    Chunk chunk = {};
    chunk.begin = begin;
    chunk.end = std::min(rows, begin + chunk_rows);
    chunk.weights = program.rows[begin];
    schedule.chunks.push_back(std::move(chunk));
  }
  const int64_t count = static_cast<int64_t>(schedule.chunks.size());
  std::unique_ptr<ExecutableMemory> code;
  if (schedule.jit != nullptr) {
    int64_t bytes = 0;
    for (Chunk& chunk : schedule.chunks) {
      chunk.code = bytes;
      bytes += MostCodeBytes(program, schedule, block_planes, chunk);
    }
    code = ExecutableMemory::Allocate(bytes);
  }
  const auto make_lists = [&] {
    // Refused: lists serve.
    ScheduleOptions lists = options;
    lists.jit = nullptr;
    return MakeSchedule(program, lists, pool);
  };
  if (schedule.jit != nullptr && code == nullptr) return make_lists();
  std::atomic<int64_t> code_bytes{0};
  Parallel(pool, count, program.num_entries() * 20 / count,
           [&](int64_t begin, int64_t end) {
             for (int64_t c = begin; c < end; ++c) {
               Chunk* chunk = &schedule.chunks[c];
               int32_t* order = schedule.order.data() + chunk->weights;
               if (schedule.jit != nullptr) {
                 uint8_t* const to = code->writable() + chunk->code;
                 code_bytes += MakeTeams(program, schedule, block_planes, order,
                                         chunk, to) -
                               to;
               } else {
                 ChunkMaker(program, schedule.plane_size, block_planes,
                            item_rows, order, chunk);
               }
             }
           });
  if (schedule.jit == nullptr) return schedule;
  if (!code->Seal()) return make_lists();
  schedule.code = std::move(code);
  schedule.code_bytes = code_bytes;
  schedule.zeros.resize(chunk_rows);
  return schedule;
}

}  // namespace sparse_conv
