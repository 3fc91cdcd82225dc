// From lists of tensors to launches, for a Device with
//
//   void Launch(const Kernel& kernel, int64_t blocks);
//   void Zero(void* memory, int64_t bytes);
//
// which are a CUDA stream, or plain loops in ternary_cuda_host_test.cc.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_LAUNCH_INL_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_LAUNCH_INL_H_

#include <algorithm>
#include <numeric>

#include "custom_ops/core/ternary/ternary_cuda_kernels_inl.h"

namespace ternary {
namespace cuda {

// A rank has 24 bits.
constexpr int64_t kMaxWorkers = int64_t{1} << 24;

inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Elements that are not left out.
inline int64_t Count(const TernaryTensor& tensor) {
  return tensor.size - tensor.before - tensor.after;
}
inline int64_t Count(const Record& record) { return record.end - record.begin; }

// ceil(2^bits * (2^log2 - divisor) / divisor) and shifts, as in the paper.
template <typename Divider, typename Word>
Divider MakeDivider(Word divisor) {
  constexpr int kBits = 8 * sizeof(Word);
  int log2 = 0;
  while (log2 < kBits &&
         (static_cast<unsigned __int128>(1) << log2) < divisor) {
    ++log2;
  }
  const unsigned __int128 excess =
      (static_cast<unsigned __int128>(1) << log2) - divisor;
  return {divisor, static_cast<Word>((excess << kBits) / divisor + 1),
          std::min(log2, 1), std::max(log2 - 1, 0)};
}

inline Code MakeCode(int64_t num_workers) {
  Code code = {};
  code.num_workers = num_workers;
  code.base = static_cast<uint32_t>(2 * num_workers + 1);
  code.digits = ternary_digits_per_word(num_workers);
  code.powers_base = 1;
  for (int i = 0; i < kPowerBits; ++i) code.powers_base *= code.base;
  for (int i = 0; i < code.digits; ++i) {
    code.zeros = code.zeros * code.base + 1;
  }
  uint64_t group_base = code.base;
  code.group_digits = 1;
  while (code.group_digits < code.digits &&
         group_base * code.base <= uint64_t{1} << 32) {
    group_base *= code.base;
    ++code.group_digits;
  }
  code.group_divider = MakeDivider<Divider64>(group_base);
  code.digit_divider = MakeDivider<Divider32>(code.base);
  code.element_divider =
      MakeDivider<Divider32>(static_cast<uint32_t>(code.digits));
  return code;
}

// Parts of a workspace, one after the other; without memory, only counts.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <typename T>
  T* Take(int64_t count) {
    T* part =
        memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += DivideUp(count * static_cast<int64_t>(sizeof(T)), 16) * 16;
    return part;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

// Writes the table of a list into `records`: `units(tensor)` says how many
// words, groups or blocks of statistics a tensor has, `tiles(record)` how many
// tiles, after setting first_unit and skip where they are not simply added up.
template <typename Device, typename Units, typename Tiles>
Table StoreTable(const TernaryTensor* tensors, int num_tensors,
                 int64_t bucket_size, const Units& units, const Tiles& tiles,
                 Record* records, Device* device, int64_t* num_units) {
  StoreTableKernel kernel = {};
  Table table = {records, num_tensors, 0};
  int64_t unit = 0;
  int64_t bucket = 0;
  for (int t = 0; t < num_tensors; ++t) {
    const TernaryTensor& tensor = tensors[t];
    Record& record = kernel.records[kernel.count++];
    record = {tensor.data,
              tensor.size,
              tensor.before,
              tensor.size - tensor.after,
              table.num_tiles,
              unit,
              bucket,
              tensor.id,
              static_cast<int16_t>(tensor.dtype),
              0};
    table.num_tiles += tiles(&record);
    unit += units(tensor);
    bucket += ternary_num_buckets(tensor.size, bucket_size);
    if (kernel.count == StoreTableKernel::kMaxRecords || t + 1 == num_tensors) {
      kernel.table = records + t + 1 - kernel.count;
      device->Launch(kernel, 1);
      kernel.count = 0;
    }
  }
  *num_units = unit;
  return table;
}

struct ScalersWorkspace {
  Record* records;
  uint64_t* maxima;
  int64_t num_buckets;
  Moments* moments;
  int64_t bytes;
};

inline ScalersWorkspace SplitScalersWorkspace(const TernaryTensor* tensors,
                                              int num_tensors,
                                              int64_t bucket_size,
                                              void* memory) {
  int64_t blocks = 0;
  int64_t buckets = 0;
  for (int t = 0; t < num_tensors; ++t) {
    blocks += DivideUp(tensors[t].size, kStatisticsBlock);
    buckets += ternary_num_buckets(tensors[t].size, bucket_size);
  }
  Workspace workspace(memory);
  ScalersWorkspace parts = {};
  parts.records = workspace.Take<Record>(num_tensors);
  parts.maxima = workspace.Take<uint64_t>(buckets);
  parts.num_buckets = buckets;
  parts.moments = workspace.Take<Moments>(blocks);
  parts.bytes = workspace.bytes();
  return parts;
}

template <typename Device>
void Scalers(const TernaryTensor* tensors, int num_tensors, double clip_factor,
             int64_t bucket_size, TernaryDtype scaler_dtype, void* scalers,
             void* workspace, Device* device) {
  if (num_tensors == 0) return;
  const ScalersWorkspace parts =
      SplitScalersWorkspace(tensors, num_tensors, bucket_size, workspace);
  int64_t num_blocks;
  const Table table = StoreTable(
      tensors, num_tensors, bucket_size,
      [](const TernaryTensor& tensor) {
        return DivideUp(tensor.size, kStatisticsBlock);
      },
      [](Record* record) {
        return DivideUp(record->size, StatisticsKernel::kTile);
      },
      parts.records, device, &num_blocks);
  device->Zero(parts.maxima,
               parts.num_buckets * static_cast<int64_t>(sizeof(uint64_t)));
  device->Launch(StatisticsKernel{table, bucket_size, clip_factor > 0.0,
                                  parts.maxima, parts.moments},
                 table.num_tiles);
  device->Launch(ScalersKernel{table, bucket_size, clip_factor, parts.maxima,
                               parts.moments, scaler_dtype, scalers},
                 num_tensors);
}

template <typename Device>
void Encode(const TernaryTensor* tensors, int num_tensors,
            const TernaryEncodeOptions& options, TernaryDtype scaler_dtype,
            const void* clip_levels, const void* scalers, void* payload,
            int64_t* counts, void* workspace, Device* device) {
  const bool is_trits = options.format == kTernaryTrits;
  EncodeKernel kernel = {};
  kernel.options = options;
  kernel.code = MakeCode(options.num_workers);
  const int digits = is_trits ? kTernaryGroup : kernel.code.digits;
  const int unit = std::lcm(EncodeKernel::kElements, digits);
  kernel.tile_size = EncodeKernel::kMaxTile / unit * unit;
  int64_t num_units;
  kernel.table = StoreTable(
      tensors, num_tensors, options.bucket_size,
      [=](const TernaryTensor& tensor) {
        return DivideUp(Count(tensor), digits);
      },
      [&](Record* record) {
        return DivideUp(Count(*record), kernel.tile_size);
      },
      static_cast<Record*>(workspace), device, &num_units);
  kernel.clip_levels = {clip_levels, scaler_dtype};
  kernel.scalers = {scalers, scaler_dtype};
  kernel.payload = payload;
  kernel.guard_word = is_trits ? -1 : num_units;
  kernel.num_nonzero = counts;
  kernel.num_clipped = counts + num_tensors;
  // The first block also writes the guard, if there is nothing else to do.
  device->Launch(kernel, std::max<int64_t>(kernel.table.num_tiles, 1));
}

template <typename Device>
void SumTrits(const uint8_t* parts, int64_t groups, int64_t num_workers,
              int64_t* words, Device* device) {
  SumTritsKernel kernel = {};
  kernel.parts = parts;
  kernel.groups = groups;
  kernel.code = MakeCode(num_workers);
  kernel.words = reinterpret_cast<uint64_t*>(words);
  const int unit =
      std::lcm(static_cast<int>(kTernaryGroup), kernel.code.digits);
  kernel.tile_size = SumTritsKernel::kMaxTile / unit * unit;
  device->Launch(kernel, DivideUp(groups * kTernaryGroup, kernel.tile_size));
}

template <typename Device>
void Decode(const void* payload, TernaryLayout layout,
            const TernaryTensor* tensors, int num_tensors, int64_t bucket_size,
            int64_t num_workers, TernaryDtype scaler_dtype, const void* scalers,
            int64_t* guard, void* workspace, Device* device) {
  Record* records = static_cast<Record*>(workspace);
  const ScalerView scaler_view = {scalers, scaler_dtype};
  int64_t num_units;
  if (layout == kTernaryGathered) {
    const Table table = StoreTable(
        tensors, num_tensors, bucket_size,
        [](const TernaryTensor& tensor) {
          return ternary_num_groups(Count(tensor));
        },
        [](Record* record) {
          return DivideUp(Count(*record), DecodeTritsKernel::kTile);
        },
        records, device, &num_units);
    device->Launch(
        DecodeTritsKernel{table, bucket_size, num_workers, scaler_view,
                          static_cast<const uint8_t*>(payload), num_units,
                          guard},
        std::max<int64_t>(table.num_tiles, 1));
    return;
  }
  const Code code = MakeCode(num_workers);
  const bool is_sum = layout == kTernarySum;
  const Table table = StoreTable(
      tensors, num_tensors, bucket_size,
      [&](const TernaryTensor& tensor) {
        return is_sum ? DivideUp(Count(tensor), code.digits)
                      : ternary_num_groups(Count(tensor));
      },
      [&](Record* record) {
        if (!is_sum) {  // groups are not aligned to words
          const int64_t first = record->first_unit * kTernaryGroup;
          record->first_unit = first / code.digits;
          record->skip = static_cast<int16_t>(first % code.digits);
        }
        if (Count(*record) == 0) return int64_t{0};
        return DivideUp(record->skip + Count(*record),
                        int64_t{DecodeWordsKernel::kWords} * code.digits);
      },
      records, device, &num_units);
  device->Launch(DecodeWordsKernel{table, bucket_size, code, scaler_view,
                                   static_cast<const uint64_t*>(payload),
                                   is_sum ? num_units : -1, guard},
                 std::max<int64_t>(table.num_tiles, 1));
}

}  // namespace cuda
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_LAUNCH_INL_H_
