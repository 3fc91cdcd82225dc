#include "custom_ops/core/ternary/ternary.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "custom_ops/core/ternary/codec.h"
#include "custom_ops/core/ternary/half.h"
#include "custom_ops/core/ternary/kernels.h"

namespace ternary {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Elements that one task encodes or decodes: its planes and sums stay in the
// second-level cache.
constexpr int64_t kMaxChunk = 8192;
constexpr int64_t kDecodeChunk = 4096;
// Averages that no cache would hold are written past it.
constexpr int64_t kPastCacheBytes = int64_t{1} << 23;
// Digits of a word when there is one worker; with more workers, fewer.
constexpr int64_t kMaxDigits = 40;
// Shorter tensors are not clipped: their sigma says little.
constexpr int64_t kMinClippedSize = 32;
// Nor are nearly constant ones, or a bias of one element would never train.
constexpr double kSmallestSpread = 0x1p-20;

// A consecutive part of one tensor: the unit of parallel work.
struct Chunk {
  int tensor;
  int64_t first;  // index in the tensor
  int64_t count;
};

// Elements that are not left out.
int64_t Count(const TernaryTensor& tensor) {
  return tensor.size - tensor.before - tensor.after;
}

std::vector<Chunk> Split(const TernaryTensor* tensors, int num_tensors,
                         int64_t chunk_size) {
  std::vector<Chunk> chunks;
  for (int t = 0; t < num_tensors; ++t) {
    const int64_t end = tensors[t].size - tensors[t].after;
    for (int64_t i = tensors[t].before; i < end; i += chunk_size) {
      chunks.push_back({t, i, std::min(chunk_size, end - i)});
    }
  }
  return chunks;
}

// Calls body(chunk index) for each chunk, in parallel.
template <typename Body>
void ForEach(const TernaryPool& pool, int64_t items, int64_t cost,
             const Body& body) {
  pool.run(
      pool.pool, items, cost,
      [](void* context, int64_t begin, int64_t end) {
        const Body& body = *static_cast<const Body*>(context);
        for (int64_t i = begin; i < end; ++i) body(i);
      },
      const_cast<Body*>(&body));
}

// Position of each tensor's first entry when entries(tensor) stand in turn.
template <typename Entries>
std::vector<int64_t> Offsets(const TernaryTensor* tensors, int num_tensors,
                             const Entries& entries) {
  std::vector<int64_t> offsets(num_tensors + 1, 0);
  for (int t = 0; t < num_tensors; ++t) {
    offsets[t + 1] = offsets[t] + entries(tensors[t]);
  }
  return offsets;
}

std::vector<int64_t> BucketOffsets(const TernaryTensor* tensors,
                                   int num_tensors, int64_t bucket_size) {
  return Offsets(tensors, num_tensors, [=](const TernaryTensor& tensor) {
    return ternary_num_buckets(tensor.size, bucket_size);
  });
}

std::vector<int64_t> GroupOffsets(const TernaryTensor* tensors,
                                  int num_tensors) {
  return Offsets(tensors, num_tensors, [](const TernaryTensor& tensor) {
    return ternary_num_groups(Count(tensor));
  });
}

std::vector<int64_t> WordOffsets(const TernaryTensor* tensors, int num_tensors,
                                 const Codec& codec) {
  return Offsets(tensors, num_tensors, [&](const TernaryTensor& tensor) {
    return codec.NumWords(Count(tensor));
  });
}

// Calls body(bucket, first, count) for the part of each bucket inside
// [first, first + count) of a tensor.
template <typename Body>
void ForEachBucket(int64_t first, int64_t count, int64_t bucket_size,
                   const Body& body) {
  if (bucket_size == 0) {
    body(int64_t{0}, first, count);
    return;
  }
  const int64_t end = first + count;
  while (first < end) {
    const int64_t bucket = first / bucket_size;
    const int64_t stop = std::min(end, (bucket + 1) * bucket_size);
    body(bucket, first, stop - first);
    first = stop;
  }
}

int64_t SizeOf(TernaryDtype dtype) {
  switch (dtype) {
    case kTernaryFloat64:
      return 8;
    case kTernaryFloat32:
      return 4;
    default:
      return 2;
  }
}

// A chunk's elements as float: the tensor's own, or converted into `buffer`.
const float* AsFloat(const TernaryTensor& tensor, const Chunk& chunk,
                     float* buffer) {
  if (tensor.dtype == kTernaryFloat32) {
    return static_cast<const float*>(tensor.data) + chunk.first;
  }
  const uint16_t* data =
      static_cast<const uint16_t*>(tensor.data) + chunk.first;
  const Kernels& kernels = ActiveKernels();
  const auto widen =
      tensor.dtype == kTernaryFloat16 ? kernels.widen_f16 : kernels.widen_bf16;
  widen(data, chunk.count, buffer);
  return buffer;
}

float RoundUpToFloat(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value
             ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
             : nearest;
}

// Raises *target to at least `value`. Order does not matter, so neither does
// the number of threads.
void AtomicMax(std::atomic<double>* target, double value) {
  double seen = target->load(std::memory_order_relaxed);
  while (seen < value && !target->compare_exchange_weak(
                             seen, value, std::memory_order_relaxed)) {
  }
}

// Raises the maxima of the block's buckets and, if the tensor may be clipped,
// computes its moments.
template <typename T>
void BlockStatistics(const T* data, const Chunk& block, int64_t bucket_size,
                     bool clips, Statistics (*statistics)(const T*, int64_t),
                     double (*abs_max)(const T*, int64_t),
                     std::atomic<double>* maxima, Moments* moments) {
  Statistics all = {};
  if (clips) {
    all = statistics(data, block.count);
    *moments = all.moments;
  }
  ForEachBucket(block.first, block.count, bucket_size,
                [&](int64_t bucket, int64_t first, int64_t count) {
                  const bool is_block = clips && count == block.count;
                  AtomicMax(maxima + bucket,
                            is_block
                                ? all.abs_max
                                : abs_max(data + (first - block.first), count));
                });
}

// The clip level of a tensor, c * sigma, or infinity where it is not clipped.
double ClipLevel(const Moments* blocks, int64_t num_blocks, int64_t size,
                 double largest, double clip_factor) {
  if (clip_factor <= 0.0 || size < kMinClippedSize) return kInfinity;
  double sum = 0.0;
  double sum_squares = 0.0;
  for (int64_t b = 0; b < num_blocks; ++b) {
    sum += blocks[b].sum;
    sum_squares += blocks[b].sum_squares;
  }
  const double mean = sum / static_cast<double>(size);
  const double variance = sum_squares / static_cast<double>(size) - mean * mean;
  const double sigma = std::sqrt(std::max(variance, 0.0));
  // Written so that a sigma that is not a number means no clipping.
  return sigma >= largest * kSmallestSpread && std::isfinite(sigma)
             ? clip_factor * sigma
             : kInfinity;
}

template <typename T>
Counts TernarizeBucket(Counts (*ternarize)(const Run<T>&, uint16_t*, uint16_t*),
                       const T* chunk_data, const Chunk& chunk, int64_t first,
                       int64_t count, double clip_level, double scaler,
                       const Stream& stream, uint16_t* plus, uint16_t* minus) {
  const int64_t offset = first - chunk.first;
  const Run<T> run = {
      chunk_data + offset,    first,  count, offset, static_cast<T>(clip_level),
      static_cast<T>(scaler), &stream};
  return ternarize(run, plus, minus);
}

// Sums of trits (0 to 2 each) of groups [first, first + groups) of all parts,
// at most kMaxByteWorkers of them.
void AddTrits(const uint8_t* parts, int64_t groups_per_part, int64_t first,
              int64_t groups, int64_t num_parts, uint8_t* sums) {
  const Kernels& kernels = ActiveKernels();
  std::memset(sums, 0, groups * kTernaryGroup);
  for (int64_t part = 0; part < num_parts; ++part) {
    kernels.add_trits(
        parts + (part * groups_per_part + first) * kTernaryGroupBytes, groups,
        sums);
  }
}

// The same of any number of parts.
void AddTrits(const uint8_t* parts, int64_t groups_per_part, int64_t first,
              int64_t groups, int64_t num_parts, int32_t* sums) {
  const int64_t count = groups * kTernaryGroup;
  uint8_t partial[kTernaryGroup * kMaxDigits];
  std::fill(sums, sums + count, 0);
  for (int64_t part = 0; part < num_parts; part += kMaxByteWorkers) {
    AddTrits(parts + part * groups_per_part * kTernaryGroupBytes,
             groups_per_part, first, groups,
             std::min(num_parts - part, kMaxByteWorkers), partial);
    for (int64_t i = 0; i < count; ++i) sums[i] += partial[i];
  }
}

// scaler / N in double; NaN for an infinite scaler.
double Ratio(double scaler, int64_t num_workers) {
  if (std::isinf(scaler)) return std::numeric_limits<double>::quiet_NaN();
  return scaler / static_cast<double>(num_workers);
}

// Writes (sums[i] - offset) * ratio, `count` elements of the dtype.
template <typename Sum>
void WriteScaled(const Sum* sums, int64_t count, int32_t offset, double ratio,
                 TernaryDtype dtype, bool past_cache, void* memory) {
  const auto write = [&](auto* out, const auto& element) {
    for (int64_t i = 0; i < count; ++i) out[i] = element(sums[i] - offset);
  };
  if (dtype == kTernaryFloat64) {
    write(static_cast<double*>(memory),
          [=](int32_t sum) { return sum * ratio; });
    return;
  }
  // Division of two floats rounded to double and then to float is the IEEE
  // float division: double has more than twice the digits.
  const float ratio32 = static_cast<float>(ratio);
  if (dtype == kTernaryFloat32) {
    float* out = static_cast<float*>(memory);
    if constexpr (sizeof(Sum) == 1) {
      ActiveKernels().scale_u8(sums, count, offset, ratio32, past_cache, out);
    } else {
      write(out,
            [=](int32_t sum) { return static_cast<float>(sum) * ratio32; });
    }
    return;
  }
  const auto convert = dtype == kTernaryFloat16 ? ToFloat16 : ToBfloat16;
  write(static_cast<uint16_t*>(memory), [=](int32_t sum) {
    return convert(static_cast<double>(sum) * ratio32);
  });
}

}  // namespace
}  // namespace ternary

using namespace ternary;  // NOLINT: the definitions of the C interface follow.

extern "C" int ternary_digits_per_word(int64_t num_workers) {
  return Codec::ForWorkers(num_workers).digits();
}

extern "C" int64_t ternary_num_words(int64_t size, int64_t num_workers) {
  return Codec::ForWorkers(num_workers).NumWords(size);
}

extern "C" int64_t ternary_num_groups(int64_t size) {
  return (size + kTernaryGroup - 1) / kTernaryGroup;
}

extern "C" void ternary_cut(TernaryTensor* tensors, int num_tensors,
                            int64_t part, int64_t num_parts) {
  const std::vector<int64_t> offsets = GroupOffsets(tensors, num_tensors);
  const int64_t groups = offsets[num_tensors];
  // Without the product groups * part.
  const auto edge = [&](int64_t p) {
    return groups / num_parts * p + groups % num_parts * p / num_parts;
  };
  for (int t = 0; t < num_tensors; ++t) {
    const int64_t size = tensors[t].size;
    const auto element = [&](int64_t group) {
      const int64_t groups_in = std::max<int64_t>(group - offsets[t], 0);
      return groups_in < offsets[t + 1] - offsets[t] ? groups_in * kTernaryGroup
                                                     : size;
    };
    tensors[t].before = element(edge(part));
    tensors[t].after = size - element(edge(part + 1));
  }
}

extern "C" int64_t ternary_num_buckets(int64_t size, int64_t bucket_size) {
  return bucket_size == 0 ? 1 : (size + bucket_size - 1) / bucket_size;
}

extern "C" void ternary_scalers(const TernaryTensor* tensors, int num_tensors,
                                double clip_factor, int64_t bucket_size,
                                double* scalers, const TernaryPool* pool) {
  const Kernels& kernels = ActiveKernels();
  const std::vector<Chunk> blocks =
      Split(tensors, num_tensors, kStatisticsBlock);
  const std::vector<int64_t> bucket_offsets =
      BucketOffsets(tensors, num_tensors, bucket_size);
  std::vector<std::atomic<double>> maxima(bucket_offsets[num_tensors]);
  for (std::atomic<double>& maximum : maxima) maximum = 0.0;
  std::vector<Moments> moments(blocks.size());
  const bool clips = clip_factor > 0.0;

  ForEach(*pool, static_cast<int64_t>(blocks.size()), 2000, [&](int64_t b) {
    const Chunk& block = blocks[b];
    const TernaryTensor& tensor = tensors[block.tensor];
    std::atomic<double>* maximum = &maxima[bucket_offsets[block.tensor]];
    if (tensor.dtype == kTernaryFloat64) {
      BlockStatistics(static_cast<const double*>(tensor.data) + block.first,
                      block, bucket_size, clips, kernels.statistics_f64,
                      kernels.abs_max_f64, maximum, &moments[b]);
    } else {
      float buffer[kStatisticsBlock];
      BlockStatistics(AsFloat(tensor, block, buffer), block, bucket_size, clips,
                      kernels.statistics_f32, kernels.abs_max_f32, maximum,
                      &moments[b]);
    }
  });

  int64_t first_block = 0;
  for (int t = 0; t < num_tensors; ++t) {
    const TernaryTensor& tensor = tensors[t];
    const int64_t num_blocks =
        (tensor.size + kStatisticsBlock - 1) / kStatisticsBlock;
    const int64_t begin = bucket_offsets[t];
    const int64_t end = bucket_offsets[t + 1];
    double largest = 0.0;
    for (int64_t i = begin; i < end; ++i) {
      largest = std::max(largest, maxima[i].load());
    }
    const double clip_level =
        ClipLevel(moments.data() + first_block, num_blocks, tensor.size,
                  largest, clip_factor);
    for (int64_t i = begin; i < end; ++i) {
      const double maximum = maxima[i].load();
      // An infinite maximum marks a bucket that is not finite: it stays.
      const double scaler =
          std::isinf(maximum) ? maximum : std::min(maximum, clip_level);
      scalers[i] =
          tensor.dtype == kTernaryFloat64 ? scaler : RoundUpToFloat(scaler);
    }
    first_block += num_blocks;
  }
}

extern "C" void ternary_encode(const TernaryTensor* tensors, int num_tensors,
                               const TernaryEncodeOptions* options,
                               const double* clip_levels, const double* scalers,
                               void* payload, int64_t* counts,
                               const TernaryPool* pool) {
  const Kernels& kernels = ActiveKernels();
  const Codec& codec = Codec::ForWorkers(options->num_workers);
  const bool is_trits = options->format == kTernaryTrits;
  // Chunks begin at a Philox block, and at a group or a word.
  const int64_t unit =
      is_trits ? int64_t{kTernaryGroup} : kPhiloxBlock * codec.digits();
  const std::vector<Chunk> chunks =
      Split(tensors, num_tensors, kMaxChunk / unit * unit);
  const std::vector<int64_t> bucket_offsets =
      BucketOffsets(tensors, num_tensors, options->bucket_size);
  const std::vector<int64_t> offsets =
      is_trits ? GroupOffsets(tensors, num_tensors)
               : WordOffsets(tensors, num_tensors, codec);
  std::vector<std::atomic<int64_t>> nonzero(num_tensors);
  std::vector<std::atomic<int64_t>> clipped(num_tensors);
  for (int t = 0; t < num_tensors; ++t) nonzero[t] = clipped[t] = 0;

  const int64_t cost = 6000;
  ForEach(*pool, static_cast<int64_t>(chunks.size()), cost, [&](int64_t c) {
    const Chunk& chunk = chunks[c];
    const TernaryTensor& tensor = tensors[chunk.tensor];
    const Stream stream = {options->seed, options->step, options->rank,
                           tensor.id};
    // Room for the word-sized reads of Codec::Pack and for a last group.
    uint16_t plus[kMaxChunk / 16 + 16] = {};
    uint16_t minus[kMaxChunk / 16 + 16] = {};
    float buffer[kMaxChunk];
    const bool is_double = tensor.dtype == kTernaryFloat64;
    const float* floats = is_double ? nullptr : AsFloat(tensor, chunk, buffer);
    const double* doubles =
        is_double ? static_cast<const double*>(tensor.data) + chunk.first
                  : nullptr;
    Counts of_chunk;
    ForEachBucket(
        chunk.first, chunk.count, options->bucket_size,
        [&](int64_t bucket, int64_t first, int64_t count) {
          const int64_t index = bucket_offsets[chunk.tensor] + bucket;
          const double scaler = scalers[index];
          if (!(scaler >= kSmallestScaler) || std::isinf(scaler)) return;
          const Counts more =
              is_double ? TernarizeBucket(kernels.ternarize_f64, doubles, chunk,
                                          first, count, clip_levels[index],
                                          scaler, stream, plus, minus)
                        : TernarizeBucket(kernels.ternarize_f32, floats, chunk,
                                          first, count, clip_levels[index],
                                          scaler, stream, plus, minus);
          of_chunk.nonzero += more.nonzero;
          of_chunk.clipped += more.clipped;
        });
    nonzero[chunk.tensor] += of_chunk.nonzero;
    clipped[chunk.tensor] += of_chunk.clipped;
    const int64_t offset = offsets[chunk.tensor];
    const int64_t position = chunk.first - tensor.before;
    if (is_trits) {
      kernels.pack_trits(
          plus, minus, ternary_num_groups(chunk.count),
          static_cast<uint8_t*>(payload) +
              (offset + position / kTernaryGroup) * kTernaryGroupBytes);
    } else {
      codec.Pack(
          plus, minus, chunk.count,
          static_cast<uint64_t*>(payload) + offset + position / codec.digits());
    }
  });

  for (int t = 0; t < num_tensors; ++t) {
    counts[t] += nonzero[t];
    counts[num_tensors + t] += clipped[t];
  }
  if (!is_trits) static_cast<int64_t*>(payload)[offsets[num_tensors]] = 1;
}

extern "C" void ternary_sum_trits(const uint8_t* parts, int64_t groups,
                                  int64_t num_workers, int64_t* words,
                                  const TernaryPool* pool) {
  const Codec& codec = Codec::ForWorkers(num_workers);
  // Chunks begin at a group and at a word.
  const int64_t unit = kTernaryGroup /
                       std::gcd<int64_t>(kTernaryGroup, codec.digits()) *
                       codec.digits();
  TernaryTensor all = {};
  all.size = groups * kTernaryGroup;
  const std::vector<Chunk> chunks = Split(&all, 1, unit);
  const int64_t cost = unit * (1 + num_workers);
  ForEach(*pool, static_cast<int64_t>(chunks.size()), cost, [&](int64_t c) {
    const Chunk& chunk = chunks[c];
    int32_t sums[kTernaryGroup * kMaxDigits];
    AddTrits(parts, groups, chunk.first / kTernaryGroup,
             chunk.count / kTernaryGroup, num_workers, sums);
    codec.PackSums(
        sums, chunk.count,
        reinterpret_cast<uint64_t*>(words) + chunk.first / codec.digits());
  });
}

extern "C" int64_t ternary_decode(const void* payload, TernaryLayout layout,
                                  const TernaryTensor* tensors, int num_tensors,
                                  int64_t bucket_size, int64_t num_workers,
                                  const double* scalers,
                                  const TernaryPool* pool) {
  const Codec& codec = Codec::ForWorkers(num_workers);
  const int64_t digits = codec.digits();
  const std::vector<int64_t> bucket_offsets =
      BucketOffsets(tensors, num_tensors, bucket_size);
  const std::vector<int64_t> offsets =
      layout == kTernarySum ? WordOffsets(tensors, num_tensors, codec)
                            : GroupOffsets(tensors, num_tensors);
  const uint64_t* words = static_cast<const uint64_t*>(payload);
  if (layout == kTernarySum) {
    const int64_t guard = static_cast<int64_t>(words[offsets[num_tensors]]);
    if (guard != num_workers) return guard;
  }

  // Chunks begin at a word, and hold whole blocks of words, or at a group.
  const int64_t unit =
      layout == kTernarySum ? kUnpackWords * digits : int64_t{kTernaryGroup};
  const std::vector<Chunk> chunks =
      Split(tensors, num_tensors, kDecodeChunk / unit * unit);
  int64_t bytes = 0;
  for (int t = 0; t < num_tensors; ++t) {
    bytes += Count(tensors[t]) * SizeOf(tensors[t].dtype);
  }
  const bool past_cache = bytes >= kPastCacheBytes;
  const int64_t cost = 2000;
  ForEach(*pool, static_cast<int64_t>(chunks.size()), cost, [&](int64_t c) {
    const Chunk& chunk = chunks[c];
    const int64_t offset = offsets[chunk.tensor];
    const TernaryTensor& tensor = tensors[chunk.tensor];
    const int64_t position = chunk.first - tensor.before;
    const double* const tensor_scalers = scalers + bucket_offsets[chunk.tensor];
    const int64_t bytes_each = SizeOf(tensor.dtype);
    char* const out =
        static_cast<char*>(tensor.data) + chunk.first * bytes_each;
    // Sums of digits [position, position + chunk.count) of the tensor.
    const auto write = [&](const auto* sums) {
      ForEachBucket(chunk.first, chunk.count, bucket_size,
                    [&](int64_t bucket, int64_t first, int64_t count) {
                      const int64_t i = first - chunk.first;
                      WriteScaled(
                          sums + i, count, static_cast<int32_t>(num_workers),
                          Ratio(tensor_scalers[bucket], num_workers),
                          tensor.dtype, past_cache, out + i * bytes_each);
                    });
    };
    const auto decode = [&](auto* sums) {
      if (layout == kTernaryGathered) {
        AddTrits(static_cast<const uint8_t*>(payload), offsets[num_tensors],
                 offset + position / kTernaryGroup,
                 ternary_num_groups(chunk.count), num_workers, sums);
        write(sums);
        return;
      }
      // The first word may hold digits of the tensor before.
      const int64_t first = layout == kTernarySum
                                ? offset * digits + position
                                : offset * kTernaryGroup + position;
      codec.Unpack(words + first / digits,
                   codec.NumWords(first % digits + chunk.count), sums);
      write(sums + first % digits);
    };
    // Room for the digits of the first and of the last word.
    constexpr int64_t kRoom = kDecodeChunk + kTernaryGroup;
    if (num_workers <= kMaxByteWorkers) {
      uint8_t sums[kDigitSlack + kRoom + kDigitSlack];
      decode(sums + kDigitSlack);
    } else {
      int32_t sums[kRoom];
      decode(sums);
    }
  });
  return num_workers;
}
