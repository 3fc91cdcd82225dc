#include "custom_ops/core/sparse_conv/engine.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "custom_ops/core/sparse_conv/convert.h"

namespace sparse_conv {
namespace {

// Of strips that the gradient of values takes together; not fewer than keep
// the threads busy.
constexpr int64_t kStripsBytes = int64_t{4} << 20;

int64_t CeilOfRatio(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A thread's own memory; it stays with the thread.
class ThreadMemory {
 public:
  ~ThreadMemory() { std::free(memory_); }
  // Null where there is none.
  float* Get(int64_t size) {
    constexpr size_t kLine = 64;
    const size_t bytes = static_cast<size_t>(size) * sizeof(float) + kLine;
    if (capacity_ < bytes) {
      std::free(memory_);
      memory_ = std::malloc(bytes);
      capacity_ = memory_ == nullptr ? 0 : bytes;
    }
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    return reinterpret_cast<float*>((address + kLine - 1) / kLine * kLine);
  }

 private:
  void* memory_ = nullptr;
  size_t capacity_ = 0;
};

thread_local ThreadMemory sums_memory;
thread_local ThreadMemory planes_memory;

// One strip of one group of images.
struct Strip {
  ImageGroup group;
  int64_t begin;  // tiles
  int64_t end;
};

// The strips of a call.
class Strips {
 public:
  Strips(const Program& program, const Schedule& schedule, const Batch& batch)
      : frame_(program), schedule_(schedule), batch_(batch) {
    if (schedule.stacked) {
      frame_.images = batch.count;
      batch_.count = 1;
    }
    tiles_ = schedule.NumTiles(frame_);
    strips_ = CeilOfRatio(tiles_, schedule.strip_tiles);
  }

  const Frame& frame() const { return frame_; }
  int64_t size() const {
    return CeilOfRatio(batch_.count, schedule_.unit()) * strips_;
  }
  Strip operator[](int64_t s) const {
    const int64_t unit = schedule_.unit();
    const int64_t image = s / strips_ * unit;
    const int64_t begin = s % strips_ * schedule_.strip_tiles;
    return {{batch_.first + image, std::min(unit, batch_.count - image)},
            begin,
            std::min(tiles_, begin + schedule_.strip_tiles)};
  }

  // From position 0 to that of a tile, in the planes of its strip.
  int64_t Offset(const Strip& strip, int64_t tile) const {
    return (schedule_.TilePosition(frame_, tile) -
            schedule_.TilePosition(frame_, strip.begin)) *
           schedule_.unit();
  }
  void Fill(const Kernels& kernels, const float* source, const Strip& strip,
            float* planes) const {
    FillPlanes(kernels, frame_, schedule_, source, strip.group,
               schedule_.TilePosition(frame_, strip.begin),
               schedule_.TilePosition(frame_, strip.end - 1) +
                   schedule_.tile_pixels + schedule_.reach,
               planes);
  }

 private:
  Frame frame_;
  const Schedule& schedule_;
  Batch batch_;
  int64_t tiles_;
  int64_t strips_;  // of a group
};

// Memory that the next strip will read, fetched while this one is computed.
class Ahead {
 public:
  // The bytes [begin, end) in so many calls of Fetch.
  Ahead(const float* begin, const float* end, int64_t calls)
      : next_(reinterpret_cast<const char*>(begin)),
        end_(reinterpret_cast<const char*>(end)),
        step_(CeilOfRatio(end_ - next_, std::max(int64_t{1}, calls))) {}

  void Fetch() {
    const char* const end = std::min(end_, next_ + step_);
    for (; next_ < end; next_ += kLine) __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr int kLine = 64;
  const char* next_;
  const char* const end_;
  const int64_t step_;
};

// All code of a chunk for the first `vectors` of a tile.
void RunTeams(const Schedule& schedule, const Chunk& chunk,
              const float* weights, const float* bias, int64_t vectors,
              const float* planes, float* sums, Ahead* ahead) {
  const JitTarget& jit = *schedule.jit;
  const float* const from = bias == nullptr ? schedule.zeros.data() : bias;
  const uint8_t* const code = schedule.code->data() + chunk.code;
  for (const Team& team : chunk.teams) {
    const float* const stream = weights + chunk.weights + team.weights;
    for (int64_t v = 0; v < vectors; v += jit.vectors) {
      jit.call(code + team.code, planes + v * schedule.lanes, stream,
               sums + v * schedule.lanes, from);
      ahead->Fetch();
    }
  }
}

// All lists of a chunk for one tile.
void RunChunk(const Kernels& kernels, const Schedule& schedule,
              const Chunk& chunk, const float* weights, const float* bias,
              int64_t vectors, const float* planes, float* sums, Ahead* ahead) {
  if (schedule.jit != nullptr) {
    RunTeams(schedule, chunk, weights, bias, vectors, planes, sums, ahead);
    return;
  }
  ListCall call;
  call.unit = schedule.unit();
  call.row_stride = schedule.tile_size();
  call.bias = bias;
  for (const List& list : chunk.lists) {
    call.begin = chunk.items.data() + list.begin;
    call.end = chunk.items.data() + list.end;
    call.offsets = chunk.offsets.data() + list.offsets;
    call.weights = weights + chunk.weights + list.weights;
    // As equal parts as there are.
    const int parts = static_cast<int>(
        CeilOfRatio(schedule.tile, kernels.max_vectors[list.rows]));
    int vector = 0;
    for (int part = 0; part < parts; ++part) {
      const int vectors =
          (schedule.tile - vector + parts - part - 1) / (parts - part);
      call.planes = planes + vector * schedule.lanes;
      call.sums = sums + vector * schedule.lanes;
      kernels.list(list.rows, vectors, list.first)(call);
      vector += vectors;
    }
  }
}

// Of a strip, in cycles or so.
int64_t RowsCost(const Program& program, const Schedule& schedule) {
  return (program.num_entries() * schedule.tile / 2 +
          program.num_rows() * schedule.tile_size()) *
         schedule.strip_tiles;
}
int64_t PlanesCost(const Program& program, const Schedule& schedule) {
  return program.num_planes() * schedule.tile_size() * schedule.strip_tiles;
}

// When the last of so many threads is done with the strips, each in so many
// parts: first all but the last strip, which may be shorter.
double TimeOf(const Program& program, const Schedule& schedule,
              const Strips& strips, int64_t parts, int64_t threads) {
  const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
  const int64_t items = (strips.size() - 1) * parts;
  const Strip last = strips[strips.size() - 1];
  const double share = static_cast<double>(last.end - last.begin) /
                       static_cast<double>(schedule.strip_tiles);
  // Idle threads take short items while the others do their last long one.
  const int64_t idle = (threads - items % threads) % threads;
  const int64_t meanwhile = idle * static_cast<int64_t>(1 / share);
  const double turns =
      static_cast<double>(CeilOfRatio(items, threads)) +
      share * CeilOfRatio(std::max(int64_t{0}, parts - meanwhile), threads);
  return turns *
         (PlanesCost(program, schedule) +
          RowsCost(program, schedule) / chunks * CeilOfRatio(chunks, parts));
}

// The parts of the chunks with which a call takes least time.
int64_t PartsOf(const Program& program, const Schedule& schedule,
                const Strips& strips, int64_t threads) {
  const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
  const int64_t most =
      std::min(chunks, CeilOfRatio(threads * 4, strips.size()));
  int64_t best = 1;
  double least = TimeOf(program, schedule, strips, 1, threads);
  for (int64_t parts = 2; parts <= most; ++parts) {
    const double time = TimeOf(program, schedule, strips, parts, threads);
    if (time < least) {
      least = time;
      best = parts;
    }
  }
  return best;
}

// Results of more bytes than this are written past the caches.
constexpr int64_t kCacheBytes = int64_t{16} << 20;

}  // namespace

bool Execute(const Kernels& kernels, const Program& program,
             const Schedule& schedule, const float* weights, const Batch& batch,
             const float* source, const float* bias, bool relu, float* result,
             const SparseConvPool* pool) {
  const Strips strips(program, schedule, batch);
  const Frame& frame = strips.frame();
  const bool past_cache = batch.count * program.result.size() *
                              static_cast<int64_t>(sizeof(float)) >
                          kCacheBytes;
  // A strip's planes are made once, unless there are few strips: then each
  // part of the chunks makes its own. A task takes some items that follow each
  // other.
  const int64_t threads = pool == nullptr ? 1 : std::max(1, pool->num_threads);
  const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
  const int64_t parts = PartsOf(program, schedule, strips, threads);
  const int64_t items = strips.size() * parts;
  const int64_t task_items = std::max(int64_t{1}, items / (threads * 8));
  const int64_t tasks = CeilOfRatio(items, task_items);
  const int64_t cost = 1 + (RowsCost(program, schedule) / parts +
                            PlanesCost(program, schedule)) *
                               task_items;
  int64_t chunk_rows = 0;
  int64_t calls = 0;  // of code in a strip
  for (const Chunk& chunk : schedule.chunks) {
    chunk_rows = std::max(chunk_rows, chunk.end - chunk.begin);
    calls += static_cast<int64_t>(chunk.teams.size());
  }
  calls *= schedule.strip_tiles * schedule.tile;
  // The pixels of strip s, if memory has to bring them and they lie together.
  const int64_t source_size = batch.count * program.source.size();
  const bool far =
      program.source.format == kSparseConvNhwc && parts == 1 &&
      source_size * static_cast<int64_t>(sizeof(float)) > kCacheBytes;
  const auto pixels_of = [&](int64_t s) {
    return source + batch.first * program.source.size() +
           source_size / strips.size() * s;
  };
  std::atomic<bool> failed{false};
  Parallel(pool, tasks, cost, [&](int64_t begin, int64_t end) {
    float* const planes = planes_memory.Get(schedule.strip_size);
    float* const sums = sums_memory.Get(chunk_rows * schedule.tile_size());
    if (planes == nullptr || sums == nullptr) {
      failed = true;
      return;
    }
    int64_t filled = -1;
    const int64_t last = std::min(items, end * task_items);
    for (int64_t i = begin * task_items; i < last; ++i) {
      const Strip strip = strips[i / parts];
      if (filled != i / parts) strips.Fill(kernels, source, strip, planes);
      filled = i / parts;
      const bool fetch = far && i + 1 < last;
      Ahead ahead(fetch ? pixels_of(i + 1) : nullptr,
                  fetch ? pixels_of(i + 2) : nullptr, calls);
      const int64_t part = i % parts;
      for (int64_t c = chunks * part / parts; c < chunks * (part + 1) / parts;
           ++c) {
        const Chunk& chunk = schedule.chunks[c];
        for (int64_t tile = strip.begin; tile < strip.end; ++tile) {
          const int64_t position = schedule.TilePosition(frame, tile);
          const int64_t vectors = std::min<int64_t>(
              schedule.tile, CeilOfRatio(frame.num_positions() - position,
                                         schedule.lanes / schedule.unit()));
          RunChunk(kernels, schedule, chunk, weights,
                   bias == nullptr ? nullptr : bias + chunk.begin, vectors,
                   planes + strips.Offset(strip, tile), sums, &ahead);
          StoreTile(kernels, frame, schedule, sums, strip.group, position,
                    chunk.begin, chunk.end, relu, past_cache, result);
        }
      }
    }
    if (past_cache) kernels.fence();
  });
  return !failed;
}

bool ExecuteGrad(const Kernels& kernels, const Program& program,
                 const Schedule& schedule, const Batch& batch,
                 const float* source, const float* result, float* products,
                 const SparseConvPool* pool,
                 const SparseConvAllocator* allocator) {
  const Strips strips(program, schedule, batch);
  const Frame& frame = strips.frame();
  const int64_t threads = pool == nullptr ? 1 : std::max(1, pool->num_threads);
  const int64_t tile_rows = program.num_rows() * schedule.tile_size();
  const int64_t strip_rows = tile_rows * schedule.strip_tiles;
  const int64_t strip_bytes =
      (schedule.strip_size + strip_rows) * static_cast<int64_t>(sizeof(float));
  const int64_t at_once =
      std::min(strips.size(), std::max(threads, kStripsBytes / strip_bytes));
  const Scratch scratch(allocator, at_once * strip_bytes);
  float* const planes = scratch.data();
  if (planes == nullptr) return false;
  float* const rows = planes + at_once * schedule.strip_size;

  // A list belongs to one task in all strips and tiles: sums have one order.
  struct Task {
    const Chunk* chunk;
    const List* list;
  };
  std::vector<Task> tasks;
  for (const Chunk& chunk : schedule.chunks) {
    for (const List& list : chunk.lists) {
      const int64_t end = &list == &chunk.lists.back()
                              ? static_cast<int64_t>(chunk.offsets.size())
                              : (&list + 1)->offsets;
      if (list.offsets != end) tasks.push_back({&chunk, &list});
    }
  }
  const int64_t num_tasks = static_cast<int64_t>(tasks.size());
  for (int64_t first = 0; first < strips.size(); first += at_once) {
    const int64_t count = std::min(at_once, strips.size() - first);
    Parallel(pool, count, strip_rows + schedule.strip_size,
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) {
                 const Strip strip = strips[first + i];
                 strips.Fill(kernels, source, strip,
                             planes + i * schedule.strip_size);
                 for (int64_t tile = strip.begin; tile < strip.end; ++tile) {
                   LoadTile(kernels, frame, schedule, result, strip.group,
                            schedule.TilePosition(frame, tile), 0,
                            program.num_rows(),
                            rows + i * strip_rows +
                                (tile - strip.begin) * tile_rows);
                 }
               }
             });
    const int64_t cost = 1 + program.num_entries() * count *
                                 schedule.strip_tiles * schedule.tile /
                                 (2 * std::max<int64_t>(1, num_tasks));
    Parallel(pool, num_tasks, cost, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const Chunk& chunk = *tasks[t].chunk;
        const List& list = *tasks[t].list;
        ListCall call = {};
        call.begin = chunk.items.data() + list.begin;
        call.end = chunk.items.data() + list.end;
        call.offsets = chunk.offsets.data() + list.offsets;
        call.unit = schedule.unit();
        call.row_stride = schedule.tile_size();
        float* const to =
            products + (chunk.weights + list.weights) * schedule.lanes;
        for (int64_t i = 0; i < count; ++i) {
          const Strip strip = strips[first + i];
          for (int64_t tile = strip.begin; tile < strip.end; ++tile) {
            call.planes =
                planes + i * schedule.strip_size + strips.Offset(strip, tile);
            call.sums = rows + i * strip_rows +
                        (tile - strip.begin) * tile_rows +
                        chunk.begin * call.row_stride;
            kernels.grad(call, schedule.tile, to);
          }
        }
      }
    });
  }
  return true;
}

}  // namespace sparse_conv
