#include "custom_ops/core/sparse_conv/engine.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "custom_ops/core/sparse_conv/convert.h"

namespace sparse_conv {
namespace {

// Planes of as many groups as stay in a large cache; not fewer than keep the
// threads busy.
constexpr int64_t kPlanesBytes = int64_t{16} << 20;

int64_t CeilOfRatio(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A thread's own memory for one tile; it stays with the thread.
class ThreadMemory {
 public:
  float* Get(int64_t size) {
    constexpr int64_t kAlign = 64 / sizeof(float);
    if (capacity_ < size + kAlign) {
      memory_.reset(new float[size + kAlign]);
      capacity_ = size + kAlign;
    }
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_.get());
    return reinterpret_cast<float*>((address + 63) / 64 * 64);
  }

 private:
  std::unique_ptr<float[]> memory_;
  int64_t capacity_ = 0;
};

thread_local ThreadMemory sums_memory;
thread_local ThreadMemory planes_memory;

// Groups of images of one layout.
struct Groups {
  Batch batch;
  int64_t images;  // of a group
  int64_t count;

  Groups(const Schedule& schedule, const Batch& batch)
      : batch(batch),
        images(schedule.unit()),
        count(CeilOfRatio(batch.count, images)) {}

  ImageGroup operator[](int64_t g) const {
    return {batch.first + g * images,
            std::min(images, batch.count - g * images)};
  }
};

// Groups whose planes are made together.
int64_t GroupsAtOnce(const Schedule& schedule, int64_t groups,
                     const SparseConvPool* pool) {
  const int64_t bytes = schedule.group_size *
                        (schedule.local ? schedule.tiles : 1) *
                        static_cast<int64_t>(sizeof(float));
  const int64_t threads = pool == nullptr ? 1 : std::max(1, pool->num_threads);
  const int64_t most =
      std::max(threads, kPlanesBytes / std::max<int64_t>(1, bytes));
  const int64_t passes = CeilOfRatio(groups, most);
  return CeilOfRatio(groups, passes);
}

void FillPlanes(const Kernels& kernels, const Program& program,
                const Schedule& schedule, const float* source,
                const Groups& groups, int64_t first, int64_t count,
                float* planes, const SparseConvPool* pool) {
  std::memset(planes + count * schedule.group_size, 0,
              schedule.slack * sizeof(float));
  const int64_t height = program.plane_height;
  const int64_t cost = 1 + schedule.group_size / height;
  Parallel(pool, count * height, cost, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FillPlaneRow(kernels, program, schedule, source,
                   groups[first + i / height], i % height,
                   planes + i / height * schedule.group_size);
    }
  });
}

// All code of a chunk for one tile.
void RunTeams(const Schedule& schedule, const Chunk& chunk,
              const float* weights, const float* bias, const float* planes,
              float* sums) {
  const JitTarget& jit = *schedule.jit;
  const float* const from = bias == nullptr ? schedule.zeros.data() : bias;
  const uint8_t* const code = schedule.code->data() + chunk.code;
  for (const Team& team : chunk.teams) {
    const float* const stream = weights + chunk.weights + team.weights;
    for (int v = 0; v < schedule.tile; v += jit.vectors) {
      jit.call(code + team.code, planes + v * schedule.lanes, stream,
               sums + v * schedule.lanes, from);
    }
  }
}

// All lists of a chunk for one tile.
void RunChunk(const Kernels& kernels, const Schedule& schedule,
              const Chunk& chunk, const float* weights, const float* bias,
              const float* planes, float* sums) {
  if (schedule.jit != nullptr) {
    RunTeams(schedule, chunk, weights, bias, planes, sums);
    return;
  }
  ListCall call;
  call.unit = schedule.unit();
  call.row_stride = schedule.tile * schedule.lanes;
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

// Results of more bytes than this are written past the caches.
constexpr int64_t kCacheBytes = int64_t{16} << 20;

// One tile after the other, planes included.
void ExecuteLocal(const Kernels& kernels, const Program& program,
                  const Schedule& schedule, const float* weights,
                  const Groups& groups, const float* source, const float* bias,
                  bool relu, bool past_cache, float* result,
                  const SparseConvPool* pool) {
  // One tile makes its planes once, unless there are few tiles.
  const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
  const int64_t tiles = groups.count * schedule.tiles;
  const int64_t parts = tiles < 16 ? chunks : 1;
  const int64_t cost = 1 + (program.num_entries() * schedule.tile / 2 +
                            (program.num_rows() + program.num_planes()) *
                                schedule.tile * schedule.lanes) /
                               parts;
  Parallel(pool, tiles * parts, cost, [&](int64_t begin, int64_t end) {
    int64_t loaded = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = i / parts % schedule.tiles;
      const ImageGroup group = groups[i / parts / schedule.tiles];
      float* const planes = planes_memory.Get(schedule.group_size);
      if (loaded != i / parts) {
        LoadLocalPlanes(kernels, program, schedule, source, group, tile,
                        planes);
        loaded = i / parts;
      }
      for (int64_t c = i % parts; c < chunks; c += parts) {
        const Chunk& chunk = schedule.chunks[c];
        float* const sums = sums_memory.Get((chunk.end - chunk.begin) *
                                            schedule.tile * schedule.lanes);
        RunChunk(kernels, schedule, chunk, weights,
                 bias == nullptr ? nullptr : bias + chunk.begin, planes, sums);
        StoreTile(kernels, program, schedule, sums, group, tile, chunk.begin,
                  chunk.end, relu, past_cache, result);
      }
    }
    if (past_cache) kernels.fence();
  });
}

}  // namespace

bool Execute(const Kernels& kernels, const Program& program,
             const Schedule& schedule, const float* weights, const Batch& batch,
             const float* source, const float* bias, bool relu, float* result,
             const SparseConvPool* pool, const SparseConvAllocator* allocator) {
  const Groups groups(schedule, batch);
  const bool past_cache = batch.count * program.result.size() *
                              static_cast<int64_t>(sizeof(float)) >
                          kCacheBytes;
  if (schedule.local) {
    ExecuteLocal(kernels, program, schedule, weights, groups, source, bias,
                 relu, past_cache, result, pool);
    return true;
  }
  const int64_t at_once = GroupsAtOnce(schedule, groups.count, pool);
  const Scratch scratch(allocator,
                        (at_once * schedule.group_size + schedule.slack) *
                            static_cast<int64_t>(sizeof(float)));
  float* const planes = scratch.data();
  if (planes == nullptr) return false;
  const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
  const int64_t cost =
      1 + program.num_entries() * schedule.tile / (2 * chunks) +
      program.num_rows() * schedule.tile * schedule.lanes / chunks;
  for (int64_t first = 0; first < groups.count; first += at_once) {
    const int64_t count = std::min(at_once, groups.count - first);
    FillPlanes(kernels, program, schedule, source, groups, first, count, planes,
               pool);
    const int64_t items = count * schedule.tiles * chunks;
    Parallel(pool, items, cost, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Chunk& chunk = schedule.chunks[i % chunks];
        const int64_t tile = i / chunks % schedule.tiles;
        const int64_t group = i / chunks / schedule.tiles;
        float* const sums = sums_memory.Get((chunk.end - chunk.begin) *
                                            schedule.tile * schedule.lanes);
        RunChunk(kernels, schedule, chunk, weights,
                 bias == nullptr ? nullptr : bias + chunk.begin,
                 planes + group * schedule.group_size +
                     schedule.TilePosition(program, tile) * schedule.unit(),
                 sums);
        StoreTile(kernels, program, schedule, sums, groups[first + group], tile,
                  chunk.begin, chunk.end, relu, past_cache, result);
      }
      if (past_cache) kernels.fence();
    });
  }
  return true;
}

bool ExecuteGrad(const Kernels& kernels, const Program& program,
                 const Schedule& schedule, const Batch& batch,
                 const float* source, const float* result, float* products,
                 const SparseConvPool* pool,
                 const SparseConvAllocator* allocator) {
  const Groups groups(schedule, batch);
  const int64_t at_once = GroupsAtOnce(schedule, groups.count, pool);
  const int64_t planes_parts = schedule.local ? schedule.tiles : 1;
  const Scratch scratch(
      allocator,
      (at_once * planes_parts * schedule.group_size + schedule.slack) *
          static_cast<int64_t>(sizeof(float)));
  const int64_t tile_size = program.num_rows() * schedule.tile * schedule.lanes;
  const Scratch rows_scratch(allocator,
                             at_once * schedule.tiles * tile_size *
                                 static_cast<int64_t>(sizeof(float)));
  float* const planes = scratch.data();
  float* const rows = rows_scratch.data();
  if (planes == nullptr || rows == nullptr) return false;

  // A list belongs to one task in all groups and tiles: sums have one order.
  struct Task {
    const Chunk* chunk;
    const List* list;
    int64_t entries;
  };
  std::vector<Task> tasks;
  for (const Chunk& chunk : schedule.chunks) {
    for (const List& list : chunk.lists) {
      const int64_t begin = list.offsets;
      const int64_t end = &list == &chunk.lists.back()
                              ? static_cast<int64_t>(chunk.offsets.size())
                              : (&list + 1)->offsets;
      if (begin != end) tasks.push_back({&chunk, &list, end - begin});
    }
  }
  for (int64_t first = 0; first < groups.count; first += at_once) {
    const int64_t count = std::min(at_once, groups.count - first);
    if (!schedule.local) {
      FillPlanes(kernels, program, schedule, source, groups, first, count,
                 planes, pool);
    }
    Parallel(pool, count * schedule.tiles, tile_size,
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) {
                 LoadTile(kernels, program, schedule, result,
                          groups[first + i / schedule.tiles],
                          i % schedule.tiles, 0, program.num_rows(),
                          rows + i * tile_size);
                 if (!schedule.local) continue;
                 LoadLocalPlanes(kernels, program, schedule, source,
                                 groups[first + i / schedule.tiles],
                                 i % schedule.tiles,
                                 planes + i * schedule.group_size);
               }
             });
    const int64_t num_tasks = static_cast<int64_t>(tasks.size());
    const int64_t cost = 1 + program.num_entries() * count * schedule.tiles *
                                 schedule.tile /
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
        call.row_stride = schedule.tile * schedule.lanes;
        float* const to =
            products + (chunk.weights + list.weights) * schedule.lanes;
        for (int64_t i = 0; i < count * schedule.tiles; ++i) {
          const int64_t group = i / schedule.tiles;
          const int64_t tile = i % schedule.tiles;
          call.planes =
              schedule.local
                  ? planes + i * schedule.group_size
                  : planes + group * schedule.group_size +
                        schedule.TilePosition(program, tile) * schedule.unit();
          call.sums = rows + i * tile_size + chunk.begin * call.row_stride;
          kernels.grad(call, schedule.tile, to);
        }
      }
    });
  }
  return true;
}

}  // namespace sparse_conv
