// Kernels of the CUDA codec, each an object with
//
//   Shared                          what a block's threads share;
//   kThreads                        of a block;
//   int Phases(block)               phases, all threads waiting between two;
//   void Run(phase, block, thread, Shared*)   what one thread does in one
//   phase.
//
// Threads keep nothing from one phase to the next but what is in Shared, so
// plain loops over blocks, phases and threads run the same code on a host.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_KERNELS_INL_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_KERNELS_INL_H_

#include "custom_ops/core/ternary/ternary_cuda_math_inl.h"

namespace ternary {
namespace cuda {

// --- Atomics, barriers of a warp ---------------------------------------------

TERNARY_HOST_DEVICE void AtomicMax(uint64_t* target, uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(reinterpret_cast<unsigned long long*>(target),
            static_cast<unsigned long long>(value));
#else
  if (*target < value) *target = value;
#endif
}

TERNARY_HOST_DEVICE void AtomicAdd(int64_t* target, int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(target),
            static_cast<unsigned long long>(value));
#else
  *target += value;
#endif
}

// Adds the values of all threads. All lanes of a warp must call it together.
TERNARY_HOST_DEVICE void AddOfWarp(int32_t* target, int32_t value) {
#if defined(__CUDA_ARCH__)
  const int32_t sum = __reduce_add_sync(0xFFFFFFFFu, value);
  if ((threadIdx.x & 31) == 0) atomicAdd(target, sum);
#else
  *target += value;
#endif
}

// --- Arguments ---------------------------------------------------------------

// One tensor of a list. A tile is what one block works on.
struct Record {
  void* data;
  int64_t size;
  int64_t begin;  // elements [begin, end) are worked on
  int64_t end;
  int64_t first_tile;
  int64_t first_unit;  // word, group or block of statistics; see the kernel
  int64_t first_bucket;
  uint32_t id;
  int16_t dtype;
  int16_t skip;  // digits of the first word that belong to the tensor before
};

struct Table {
  const Record* records;
  int num_tensors;
  int64_t num_tiles;
};

// Scalers in device memory, of either type.
struct ScalerView {
  const void* data;
  TernaryDtype dtype;

  TERNARY_HOST_DEVICE double operator[](int64_t i) const {
    return dtype == kTernaryFloat64
               ? static_cast<const double*>(data)[i]
               : static_cast<double>(static_cast<const float*>(data)[i]);
  }
};

// The part of a tensor that a block works on.
struct Tile {
  Record record;
  int tensor;     // -1: none
  int64_t index;  // of the tile within its tensor
};

// The tensor that tile `block` belongs to: the last one to begin at or before
// it, which skips empty tensors.
TERNARY_HOST_DEVICE Tile FindTile(const Table& table, int64_t block) {
  Tile tile = {};
  tile.tensor = -1;
  if (block >= table.num_tiles) return tile;
  int low = 0;
  int high = table.num_tensors - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.records[middle].first_tile <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  tile.record = table.records[low];
  tile.tensor = low;
  tile.index = block - tile.record.first_tile;
  return tile;
}

// Calls function(Element<dtype>()) for the type of the tensor.
template <typename Function>
TERNARY_HOST_DEVICE void ForDtype(int dtype, const Function& function) {
  switch (dtype) {
    case kTernaryFloat64:
      return function(Element<kTernaryFloat64>());
    case kTernaryFloat16:
      return function(Element<kTernaryFloat16>());
    case kTernaryBfloat16:
      return function(Element<kTernaryBfloat16>());
    default:
      return function(Element<kTernaryFloat32>());
  }
}

// a / b for a >= 0, b > 0: 64-bit divisions are slow and seldom needed.
TERNARY_HOST_DEVICE int64_t Quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) {
    return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  }
  return a / b;
}

TERNARY_HOST_DEVICE int64_t Smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// The bucket that an element lies in, and where that ends.
struct Bucket {
  int64_t index;
  int64_t end;
};

TERNARY_HOST_DEVICE_COLD Bucket FindBucket(int64_t element, int64_t bucket_size,
                                           int64_t size) {
  if (bucket_size == 0) return {0, size};
  const int64_t index = Quotient(element, bucket_size);
  return {index, Smaller((index + 1) * bucket_size, size)};
}

// --- The list of tensors -----------------------------------------------------

// Writes a part of the table into the workspace. The records are arguments of
// the kernel: the launch copies them, so that no host memory has to outlive the
// call, nothing waits (a cudaMemcpyAsync from pageable memory may), and a
// captured graph replays the right list.
struct StoreTableKernel {
  static constexpr int kThreads = 64;
  // Arguments of a kernel have 4 KiB.
  static constexpr int kMaxRecords = 60;
  struct Shared {};

  Record records[kMaxRecords];
  int count;
  Record* table;

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 1; }
  TERNARY_HOST_DEVICE void Run(int, int64_t, int thread, Shared*) const {
    if (thread < count) table[thread] = records[thread];
  }
};

// --- Scalers -----------------------------------------------------------------

// Maxima of buckets and, if `clips`, sums of blocks of kStatisticsBlock. Four
// threads share such a block, each with 4 of its 16 lanes. A tensor's
// first_unit is its first block of statistics.
struct StatisticsKernel {
  static constexpr int kLanes = 16;
  static constexpr int kOwnLanes = 4;
  static constexpr int kRows = 8;  // loads under way at a time
  static constexpr int kBlocks = 16;
  static constexpr int kThreads = kBlocks * kLanes / kOwnLanes;
  static constexpr int64_t kTile = kBlocks * kStatisticsBlock;

  struct Shared {
    Tile tile;
    uint64_t maximum;
    double sum[kBlocks][kLanes + 1];  // + 1: columns in different banks
    double sum_squares[kBlocks][kLanes + 1];
  };

  Table table;
  int64_t bucket_size;
  bool clips;
  uint64_t* maxima;  // bits of a double >= 0, of each bucket
  Moments* moments;

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 3; }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    if (phase == 0) {
      if (thread == 0) {
        shared->tile = FindTile(table, block);
        shared->maximum = 0;
      }
      return;
    }
    if (shared->tile.tensor < 0) return;
    if (phase == 1) {
      ForDtype(shared->tile.record.dtype, [&](auto element) {
        AddElements<decltype(element)>(thread, shared);
      });
    } else {
      Combine(thread, shared);
    }
  }

 private:
  template <typename E>
  TERNARY_HOST_DEVICE void AddElements(int thread, Shared* shared) const {
    using Storage = typename E::Storage;
    using Value = typename E::Value;
    const Record& record = shared->tile.record;
    const int own_block = thread / (kLanes / kOwnLanes);
    const int first_lane = thread % (kLanes / kOwnLanes) * kOwnLanes;
    const int64_t begin =
        shared->tile.index * kTile + own_block * kStatisticsBlock;
    if (begin >= record.size) return;
    const int64_t end = Smaller(begin + kStatisticsBlock, record.size);
    const Storage* data = static_cast<const Storage*>(record.data);
    const bool is_aligned = IsAligned(data);

    double sum[kOwnLanes] = {};
    double sum_squares[kOwnLanes] = {};
    decltype(MagnitudeBits(Value())) largest = 0;
    Bucket bucket = FindBucket(begin, bucket_size, record.size);
    const auto flush = [&] {
      AtomicMax(bucket_size == 0 ? &shared->maximum
                                 : &maxima[record.first_bucket + bucket.index],
                FiniteOrInfinity(largest));
      largest = 0;
    };
    const auto add = [&](int lane, Value value) {
      const auto magnitude = MagnitudeBits(value);
      largest = magnitude > largest ? magnitude : largest;
      const double wide = static_cast<double>(value);
      sum[lane] += wide;
      sum_squares[lane] += wide * wide;
    };

    constexpr int64_t kStep = kRows * kLanes;
    int64_t row = begin;
    while (row < end) {
      if (row + kStep <= Smaller(end, bucket.end)) {
        Storage stored[kRows][kOwnLanes];
        TERNARY_UNROLL
        for (int r = 0; r < kRows; ++r) {
          Load<kOwnLanes>(data + row + r * kLanes + first_lane, is_aligned,
                          stored[r]);
        }
        TERNARY_UNROLL
        for (int r = 0; r < kRows; ++r) {
          TERNARY_UNROLL
          for (int lane = 0; lane < kOwnLanes; ++lane) {
            add(lane, E::Widen(stored[r][lane]));
          }
        }
        row += kStep;
        continue;
      }
      // A bucket ends here, or the block does.
      TERNARY_UNROLL
      for (int lane = 0; lane < kOwnLanes; ++lane) {
        const int64_t i = row + first_lane + lane;
        if (i >= end) break;
        if (i >= bucket.end) {
          flush();
          bucket = FindBucket(i, bucket_size, record.size);
        }
        add(lane, E::Widen(data[i]));
      }
      row += kLanes;
    }
    flush();
    TERNARY_UNROLL
    for (int lane = 0; lane < kOwnLanes; ++lane) {
      shared->sum[own_block][first_lane + lane] = sum[lane];
      shared->sum_squares[own_block][first_lane + lane] = sum_squares[lane];
    }
  }

  TERNARY_HOST_DEVICE void Combine(int thread, Shared* shared) const {
    const Record& record = shared->tile.record;
    if (thread == 0 && bucket_size == 0) {
      AtomicMax(&maxima[record.first_bucket], shared->maximum);
    }
    const int64_t own_block = shared->tile.index * kBlocks + thread;
    if (!clips || thread >= kBlocks ||
        own_block * kStatisticsBlock >= record.size) {
      return;
    }
    Moments total = {0.0, 0.0};
    for (int lane = 0; lane < kLanes; ++lane) {
      total.sum += shared->sum[thread][lane];
      total.sum_squares += shared->sum_squares[thread][lane];
    }
    moments[record.first_unit + own_block] = total;
  }
};

// One block a tensor: adds its blocks' sums in their order, then writes its
// scalers. The sums come through two buffers: while one thread adds the one
// half of the moments and one of another warp the other, the rest loads the
// next.
struct ScalersKernel {
  static constexpr int kThreads = 256;
  static constexpr int kChunk = 1024;
  static constexpr int kAdders = 64;  // threads of the two warps that add

  struct Shared {
    Record record;
    Moments total;
    uint64_t largest;
    double sum[2][kChunk];
    double sum_squares[2][kChunk];
  };

  Table table;
  int64_t bucket_size;
  double clip_factor;
  const uint64_t* maxima;
  const Moments* moments;
  TernaryDtype scaler_dtype;
  void* scalers;

  TERNARY_HOST_DEVICE int Phases(int64_t block) const {
    return NumChunks(table.records[block].size) + 3;
  }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    const int64_t size = table.records[block].size;
    const int chunks = NumChunks(size);
    if (phase == 0 && thread == 0) {
      shared->record = table.records[block];
      shared->total = {0.0, 0.0};
      shared->largest = 0;
    }
    if (phase < chunks && thread >= kAdders) {
      LoadChunk(table.records[block].first_unit, NumBlocks(size), phase,
                thread - kAdders, shared);
    }
    if (0 < phase && phase <= chunks) {
      const int64_t first = int64_t{phase - 1} * kChunk;
      const int count =
          static_cast<int>(Smaller(kChunk, NumBlocks(size) - first));
      const int buffer = (phase - 1) % 2;
      if (thread == 0) Add(shared->sum[buffer], count, &shared->total.sum);
      if (thread == 32) {
        Add(shared->sum_squares[buffer], count, &shared->total.sum_squares);
      }
    }
    if (phase == chunks + 1) FindLargest(thread, shared);
    if (phase == chunks + 2) Write(thread, *shared);
  }

 private:
  static TERNARY_HOST_DEVICE int64_t NumBlocks(int64_t size) {
    return (size + kStatisticsBlock - 1) / kStatisticsBlock;
  }

  TERNARY_HOST_DEVICE int NumChunks(int64_t size) const {
    if (!(clip_factor > 0.0)) return 0;
    return static_cast<int>((NumBlocks(size) + kChunk - 1) / kChunk);
  }

  TERNARY_HOST_DEVICE int64_t NumBuckets(const Record& record) const {
    return bucket_size == 0
               ? 1
               : Quotient(record.size + bucket_size - 1, bucket_size);
  }

  TERNARY_HOST_DEVICE void LoadChunk(int64_t first_block, int64_t num_blocks,
                                     int chunk, int loader,
                                     Shared* shared) const {
    const int64_t first = int64_t{chunk} * kChunk;
    const int count = static_cast<int>(Smaller(kChunk, num_blocks - first));
    for (int i = loader; i < count; i += kThreads - kAdders) {
      const Moments block = moments[first_block + first + i];
      shared->sum[chunk % 2][i] = block.sum;
      shared->sum_squares[chunk % 2][i] = block.sum_squares;
    }
  }

  static TERNARY_HOST_DEVICE void Add(const double* values, int count,
                                      double* total) {
    double sum = *total;
    for (int i = 0; i < count; ++i) sum += values[i];
    *total = sum;
  }

  TERNARY_HOST_DEVICE void FindLargest(int thread, Shared* shared) const {
    uint64_t largest = 0;
    const int64_t buckets = NumBuckets(shared->record);
    for (int64_t i = thread; i < buckets; i += kThreads) {
      const uint64_t maximum = maxima[shared->record.first_bucket + i];
      largest = maximum > largest ? maximum : largest;
    }
    AtomicMax(&shared->largest, largest);
  }

  TERNARY_HOST_DEVICE void Write(int thread, const Shared& shared) const {
    const Record& record = shared.record;
    const double clip_level =
        ClipLevel(shared.total, record.size, BitCast<double>(shared.largest),
                  clip_factor);
    const int64_t buckets = NumBuckets(record);
    for (int64_t b = thread; b < buckets; b += kThreads) {
      const int64_t i = record.first_bucket + b;
      const double maximum = BitCast<double>(maxima[i]);
      // An infinite maximum marks a bucket that is not finite: it stays.
      double scaler =
          IsInfinite(maximum) || !(clip_level < maximum) ? maximum : clip_level;
      if (record.dtype != kTernaryFloat64) scaler = RoundUpToFloat(scaler);
      if (scaler_dtype == kTernaryFloat64) {
        static_cast<double*>(scalers)[i] = scaler;
      } else {
        static_cast<float*>(scalers)[i] = static_cast<float>(scaler);
      }
    }
  }
};

// --- Encode ------------------------------------------------------------------

// Each thread ternarizes the 16 elements of one Philox counter into bit planes,
// then threads make words or bytes of them. A tensor's first_unit is its first
// word or group.
struct EncodeKernel {
  static constexpr int kThreads = 256;
  static constexpr int kElements = static_cast<int>(kPhiloxBlock);
  static constexpr int kMaxTile = kThreads * kElements;

  struct Shared {
    Tile tile;
    int32_t nonzero;
    int32_t clipped;
    uint64_t powers[kPowerEntries];
    // Bit i of a plane in bit i % 16 of entry i / 16. Words are read with up to
    // three entries that do not matter behind them.
    uint16_t plus[kThreads + 4];
    uint16_t minus[kThreads + 4];
  };

  Table table;
  TernaryEncodeOptions options;
  Code code;
  int tile_size;  // elements, whole Philox blocks and whole words or groups
  ScalerView clip_levels;
  ScalerView scalers;
  void* payload;
  int64_t guard_word;  // its position; -1: none
  int64_t* num_nonzero;
  int64_t* num_clipped;

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 3; }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    if (phase == 0) {
      Prepare(block, thread, shared);
      return;
    }
    if (shared->tile.tensor < 0) return;
    const Record& record = shared->tile.record;
    const int64_t position = shared->tile.index * tile_size;
    const int64_t first = record.begin + position;
    const int count = static_cast<int>(Smaller(tile_size, record.end - first));
    if (phase == 1) {
      Planes planes = {};
      if (thread * kElements < count) {
        ForDtype(record.dtype, [&](auto element) {
          planes = Ternarize<decltype(element)>(
              record, first + thread * kElements,
              static_cast<int>(Smaller(kElements, count - thread * kElements)));
        });
      }
      shared->plus[thread] =
          static_cast<uint16_t>(planes.fires & ~planes.minus);
      shared->minus[thread] =
          static_cast<uint16_t>(planes.fires & planes.minus);
      AddOfWarp(&shared->nonzero, CountBits(planes.fires));
      AddOfWarp(&shared->clipped, planes.clipped);
      return;
    }
    if (thread == 0) {
      AtomicAdd(&num_nonzero[shared->tile.tensor], shared->nonzero);
      AtomicAdd(&num_clipped[shared->tile.tensor], shared->clipped);
    }
    if (options.format == kTernaryTrits) {
      WriteTrits(record.first_unit + position / kTernaryGroup, count, thread,
                 *shared);
    } else {
      WriteWords(record.first_unit + Quotient(position, code.digits), count,
                 thread, *shared);
    }
  }

 private:
  struct Planes {
    uint32_t fires;  // bit i: element i is not 0
    uint32_t minus;  // bit i: it is negative
    int clipped;
  };

  TERNARY_HOST_DEVICE void Prepare(int64_t block, int thread,
                                   Shared* shared) const {
    if (thread == 0) {
      shared->tile = FindTile(table, block);
      shared->nonzero = 0;
      shared->clipped = 0;
      if (block == 0 && guard_word >= 0) {
        static_cast<uint64_t*>(payload)[guard_word] = 1;
      }
    }
    if (thread < kPowerEntries) {
      shared->powers[thread] =
          PowerSum(static_cast<uint32_t>(thread), code.base);
    }
    if (thread < 4) {
      shared->plus[kThreads + thread] = 0;
      shared->minus[kThreads + thread] = 0;
    }
  }

  template <typename E>
  TERNARY_HOST_DEVICE Planes Ternarize(const Record& record, int64_t first,
                                       int count) const {
    using Storage = typename E::Storage;
    const Stream stream = {options.seed, options.step, options.rank, record.id};
    const Storage* data = static_cast<const Storage*>(record.data);
    const Bucket bucket = FindBucket(first, options.bucket_size, record.size);
    const Random128 random =
        PhiloxAt(stream, static_cast<uint64_t>(first) / kElements, stream.seed);
    if constexpr (sizeof(typename E::Value) == sizeof(float)) {
      if (count == kElements && first + kElements <= bucket.end) {
        return TernarizeFast<E>(record, data, first,
                                record.first_bucket + bucket.index, random,
                                stream);
      }
    }
    return TernarizeSlow<E>(record, data, first, count, bucket, random, stream);
  }

  // Whether the scaler lets anything through.
  static TERNARY_HOST_DEVICE bool IsActive(double scaler) {
    return scaler >= kSmallestScaler && !IsInfinite(scaler);
  }

  // 16 elements of one bucket. Those that their byte leaves open, one in 256,
  // wait for a loop of their own: a warp then waits for the lane with the most
  // of them, not for each.
  template <typename E>
  TERNARY_HOST_DEVICE Planes TernarizeFast(const Record& record,
                                           const typename E::Storage* data,
                                           int64_t first, int64_t bucket,
                                           const Random128& random,
                                           const Stream& stream) const {
    Planes planes = {};
    if (!IsActive(scalers[bucket])) return planes;
    const float clip_level = static_cast<float>(clip_levels[bucket]);
    const float scaler = static_cast<float>(scalers[bucket]);
    const float per_scaler = 256.0f / scaler;
    typename E::Storage stored[kElements];
    Load<kElements>(data + first, IsAligned(record.data), stored);
    uint32_t open = 0;
    TERNARY_UNROLL
    for (int i = 0; i < kElements; ++i) {
      const float value = E::Widen(stored[i]);
      float magnitude = fabsf(value);
      if (magnitude > clip_level) {
        magnitude = clip_level;
        ++planes.clipped;
      }
      const Verdict verdict = Judge(
          magnitude, per_scaler, (random.word[i / 4] >> (8 * (i % 4))) & 0xFFu);
      planes.fires |= static_cast<uint32_t>(verdict == kFires) << i;
      open |= static_cast<uint32_t>(verdict == kOpen) << i;
      planes.minus |= static_cast<uint32_t>(SignBit(value)) << i;
    }
    for (; open != 0; open &= open - 1) {
      const int i = LowestBit(open);
      // Read again: registers cannot be indexed.
      float magnitude = fabsf(E::Widen(data[first + i]));
      if (magnitude > clip_level) magnitude = clip_level;
      if (Fires(magnitude, scaler, RandomByte(random, i), first + i, stream)) {
        planes.fires |= 1u << i;
      }
    }
    return planes;
  }

  // Anything else: doubles, ends of tensors, several buckets.
  template <typename E>
  TERNARY_HOST_DEVICE Planes TernarizeSlow(const Record& record,
                                           const typename E::Storage* data,
                                           int64_t first, int count,
                                           Bucket bucket,
                                           const Random128& random,
                                           const Stream& stream) const {
    using Value = typename E::Value;
    Planes planes = {};
    for (int i = 0; i < count; ++i) {
      const int64_t index = first + i;
      if (index >= bucket.end) {
        bucket = FindBucket(index, options.bucket_size, record.size);
      }
      const int64_t b = record.first_bucket + bucket.index;
      if (!IsActive(scalers[b])) continue;
      const Value clip_level = static_cast<Value>(clip_levels[b]);
      const Value scaler = static_cast<Value>(scalers[b]);
      const Value value = E::Widen(data[index]);
      Value magnitude = SignBit(value) ? -value : value;
      if (magnitude > clip_level) {
        magnitude = clip_level;
        ++planes.clipped;
      }
      if (Fires(static_cast<double>(magnitude), static_cast<double>(scaler),
                RandomByte(random, i), index, stream)) {
        planes.fires |= 1u << i;
      }
      planes.minus |= static_cast<uint32_t>(SignBit(value)) << i;
    }
    return planes;
  }

  TERNARY_HOST_DEVICE void WriteWords(int64_t first_word, int count, int thread,
                                      const Shared& shared) const {
    uint64_t* words = static_cast<uint64_t*>(payload) + first_word;
    for (int w = thread; w * code.digits < count; w += kThreads) {
      const int first = w * code.digits;
      uint64_t zeros = code.zeros;
      if (first + code.digits > count) {
        zeros = 0;
        for (int i = first; i < count; ++i) zeros = zeros * code.base + 1;
      }
      words[w] = PackWord(ReadBits(shared.plus, first, code.digits),
                          ReadBits(shared.minus, first, code.digits), zeros,
                          code, shared.powers);
    }
  }

  // Bits [first, first + count) of a plane, count <= 40.
  static TERNARY_HOST_DEVICE uint64_t ReadBits(const uint16_t* plane, int first,
                                               int count) {
    const int entry = first / 16;
    const int shift = first % 16;
    uint64_t bits = static_cast<uint32_t>(plane[entry]) |
                    static_cast<uint32_t>(plane[entry + 1]) << 16;
    if (shift + count > 32) {
      bits |=
          static_cast<uint64_t>(static_cast<uint32_t>(plane[entry + 2]) |
                                static_cast<uint32_t>(plane[entry + 3]) << 16)
          << 32;
    }
    return (bits >> shift) & ((uint64_t{1} << count) - 1);
  }

  // Four bytes a thread.
  TERNARY_HOST_DEVICE void WriteTrits(int64_t first_group, int count,
                                      int thread, const Shared& shared) const {
    constexpr int kQuads = kTernaryGroupBytes / 4;
    constexpr int kEntries = kTernaryGroup / 16;
    const int groups = (count + kTernaryGroup - 1) / kTernaryGroup;
    for (int i = thread; i < groups * kQuads; i += kThreads) {
      const int entry = i / kQuads * kEntries;
      uint32_t plus[kTritParts];
      uint32_t minus[kTritParts];
      TERNARY_UNROLL
      for (int k = 0; k < kTritParts; ++k) {
        plus[k] = static_cast<uint32_t>(shared.plus[entry + 2 * k]) |
                  static_cast<uint32_t>(shared.plus[entry + 2 * k + 1]) << 16;
        minus[k] = static_cast<uint32_t>(shared.minus[entry + 2 * k]) |
                   static_cast<uint32_t>(shared.minus[entry + 2 * k + 1]) << 16;
      }
      StoreFourBytes(PackFourBytes(plus, minus, i % kQuads),
                     static_cast<uint8_t*>(payload) +
                         first_group * kTernaryGroupBytes + 4 * i);
    }
  }
};

// --- Sums of trits -----------------------------------------------------------

struct SumTritsKernel {
  static constexpr int kThreads = 256;
  static constexpr int kQuads = kTernaryGroupBytes / 4;
  static constexpr int kMaxTile = kThreads / kQuads * kTernaryGroup;

  struct Shared {
    int32_t sums[kMaxTile];
  };

  const uint8_t* parts;
  int64_t groups;  // of one worker
  Code code;
  int tile_size;  // elements, whole groups and whole words
  uint64_t* words;

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 2; }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    const int64_t first = block * tile_size;
    const int count =
        static_cast<int>(Smaller(tile_size, groups * kTernaryGroup - first));
    if (phase == 0) {
      const int group = thread / kQuads;
      const int quad = thread % kQuads;
      if (group * kTernaryGroup >= count) return;
      int32_t sums[4 * kTritParts];
      SumFourBytes(parts +
                       (first / kTernaryGroup + group) * kTernaryGroupBytes +
                       4 * quad,
                   groups * kTernaryGroupBytes, code.num_workers, sums);
      int32_t* out = shared->sums + group * kTernaryGroup + 4 * quad;
      TERNARY_UNROLL
      for (int k = 0; k < kTritParts; ++k) {
        TERNARY_UNROLL
        for (int b = 0; b < 4; ++b) {
          out[k * kTernaryGroupBytes + b] = sums[4 * k + b];
        }
      }
      return;
    }
    for (int w = thread; w * code.digits < count; w += kThreads) {
      const int begin = w * code.digits;
      words[first / code.digits + w] = PackSums(
          shared->sums + begin,
          static_cast<int>(Smaller(code.digits, count - begin)), code.base);
    }
  }
};

// --- Decode ------------------------------------------------------------------

// Writes elements of one tensor, whose indices a thread must not let decrease:
// it divides once a bucket.
template <typename E>
class Writer {
 public:
  // If not `is_valid`, all is NaN.
  TERNARY_HOST_DEVICE Writer(const Record& record, int64_t bucket_size,
                             int64_t num_workers, const ScalerView& scalers,
                             bool is_valid)
      : record_(record),
        bucket_size_(bucket_size),
        num_workers_(num_workers),
        scalers_(scalers),
        is_valid_(is_valid) {}

  TERNARY_HOST_DEVICE void Write(int64_t index, int32_t sum) {
    if (index >= end_) {
      const Bucket bucket = FindBucket(index, bucket_size_, record_.size);
      const double scaler = scalers_[record_.first_bucket + bucket.index];
      end_ = bucket.end;
      ratio_ =
          is_valid_ ? Ratio(scaler, num_workers_) : BitCast<double>(kDoubleNan);
    }
    static_cast<typename E::Storage*>(record_.data)[index] =
        E::Scaled(sum, ratio_);
  }

 private:
  const Record& record_;
  const int64_t bucket_size_;
  const int64_t num_workers_;
  const ScalerView& scalers_;
  const bool is_valid_;
  int64_t end_ = 0;
  double ratio_ = 0.0;
};

// Each thread takes the digits of one word apart, into shared memory; then
// threads next to each other write elements next to each other, whole lines at
// a time. A tensor's first_unit is its first word.
struct DecodeWordsKernel {
  static constexpr int kThreads = 128;
  static constexpr int kWords = kThreads;
  static constexpr int kMaxDigits = 40;

  struct Shared {
    Tile tile;
    bool is_valid;
    int32_t sums[kWords * (kMaxDigits + 1)];
  };

  Table table;
  int64_t bucket_size;
  Code code;
  ScalerView scalers;
  const uint64_t* words;
  int64_t guard_word;  // its position; -1: none
  int64_t* guard;      // where to report it

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 3; }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    if (phase == 0) {
      if (thread == 0) {
        const int64_t found = guard_word < 0
                                  ? code.num_workers
                                  : static_cast<int64_t>(words[guard_word]);
        if (block == 0) *guard = found;
        shared->is_valid = found == code.num_workers;
        shared->tile = FindTile(table, block);
      }
      return;
    }
    if (shared->tile.tensor < 0) return;
    const Record& record = shared->tile.record;
    const int64_t digits = record.skip + record.end - record.begin;
    const int64_t first = shared->tile.index * kWords * code.digits;
    // Odd, so that threads writing their words' digits meet no bank twice.
    const int stride = code.digits | 1;
    if (phase == 1) {
      if (first + int64_t{thread} * code.digits < digits) {
        UnpackWord(
            words[record.first_unit + shared->tile.index * kWords + thread],
            code, shared->sums + thread * stride);
      }
      return;
    }
    const int count =
        static_cast<int>(Smaller(kWords * code.digits, digits - first));
    const int32_t offset = static_cast<int32_t>(code.num_workers);
    ForDtype(record.dtype, [&](auto element) {
      Writer<decltype(element)> writer(record, bucket_size, code.num_workers,
                                       scalers, shared->is_valid);
      for (int i = thread; i < count; i += kThreads) {
        const int64_t index = record.begin + first + i - record.skip;
        if (index < record.begin) continue;
        const int word = static_cast<int>(
            code.element_divider.Divide(static_cast<uint32_t>(i)));
        const int32_t sum = shared->sums[i + word * (stride - code.digits)];
        writer.Write(index, sum - offset);
      }
    });
  }
};

// Each thread adds the trits of four bytes over all workers. A tensor's
// first_unit is its first group.
struct DecodeTritsKernel {
  static constexpr int kThreads = 256;
  static constexpr int kQuads = kTernaryGroupBytes / 4;
  static constexpr int kTile = kThreads / kQuads * kTernaryGroup;

  struct Shared {
    Tile tile;
  };

  Table table;
  int64_t bucket_size;
  int64_t num_workers;
  ScalerView scalers;
  const uint8_t* parts;
  int64_t groups;  // of one worker
  int64_t* guard;

  TERNARY_HOST_DEVICE int Phases(int64_t) const { return 2; }

  TERNARY_HOST_DEVICE void Run(int phase, int64_t block, int thread,
                               Shared* shared) const {
    if (phase == 0) {
      if (thread == 0) {
        shared->tile = FindTile(table, block);
        if (block == 0) *guard = num_workers;
      }
      return;
    }
    if (shared->tile.tensor < 0) return;
    const Record& record = shared->tile.record;
    const int64_t position =
        shared->tile.index * kTile + thread / kQuads * kTernaryGroup;
    const int64_t first = record.begin + position;
    if (first >= record.end) return;
    const int quad = thread % kQuads;
    int32_t sums[4 * kTritParts];
    SumFourBytes(parts +
                     (record.first_unit + position / kTernaryGroup) *
                         kTernaryGroupBytes +
                     4 * quad,
                 groups * kTernaryGroupBytes, num_workers, sums);
    const int32_t offset = static_cast<int32_t>(num_workers);
    ForDtype(record.dtype, [&](auto element) {
      Writer<decltype(element)> writer(record, bucket_size, num_workers,
                                       scalers, true);
      TERNARY_UNROLL
      for (int i = 0; i < 4 * kTritParts; ++i) {
        const int64_t index =
            first + i / 4 * kTernaryGroupBytes + 4 * quad + i % 4;
        if (index < record.end) writer.Write(index, sums[i] - offset);
      }
    });
  }
};

}  // namespace cuda
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_KERNELS_INL_H_
