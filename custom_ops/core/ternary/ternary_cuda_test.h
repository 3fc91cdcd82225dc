// The cases that a twin of the CPU codec must pass, bit by bit: on a GPU in
// ternary_cuda_test.cu.cc, emulated by the host in ternary_cuda_host_test.cc.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_TEST_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_TEST_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "custom_ops/core/ternary/half.h"
#include "custom_ops/core/ternary/ternary.h"
#include "custom_ops/core/ternary/ternary_test.h"

namespace ternary {
namespace cuda {

// The interface of ternary_cuda.h, and memory for it. Calls check for errors.
class Twin {
 public:
  virtual ~Twin() = default;

  // Memory aligned to 256 bytes, freed with the twin.
  virtual void* Allocate(size_t bytes) = 0;
  virtual void FreeAll() = 0;
  virtual void Upload(const void* host, size_t bytes, void* device) = 0;
  virtual void Download(const void* device, size_t bytes, void* host) = 0;

  virtual void Scalers(const TernaryTensor* tensors, int num_tensors,
                       double clip_factor, int64_t bucket_size,
                       TernaryDtype scaler_dtype, void* scalers) = 0;
  virtual void Encode(const TernaryTensor* tensors, int num_tensors,
                      const TernaryEncodeOptions& options,
                      TernaryDtype scaler_dtype, const void* clip_levels,
                      const void* scalers, void* payload, int64_t* counts) = 0;
  virtual void SumTrits(const uint8_t* parts, int64_t groups,
                        int64_t num_workers, int64_t* words) = 0;
  virtual void Decode(const void* payload, TernaryLayout layout,
                      const TernaryTensor* tensors, int num_tensors,
                      int64_t bucket_size, int64_t num_workers,
                      TernaryDtype scaler_dtype, const void* scalers,
                      int64_t* guard) = 0;
};

inline const TernaryPool kSerialPool = {
    [](void*, int64_t items, int64_t, void (*body)(void*, int64_t, int64_t),
       void* context) { body(context, 0, items); },
    nullptr};

inline size_t SizeOf(TernaryDtype dtype) {
  return dtype == kTernaryFloat64 ? 8 : dtype == kTernaryFloat32 ? 4 : 2;
}

// Tensors in host memory, with a copy in device memory.
struct TensorList {
  std::vector<std::vector<char>> bytes;
  std::vector<TernaryTensor> host;
  std::vector<TernaryTensor> device;

  int size() const { return static_cast<int>(host.size()); }

  // A tensor whose data begins `offset` elements after an aligned address.
  void Add(int64_t size, TernaryDtype dtype, uint32_t id, int64_t offset,
           Twin* twin) {
    const size_t element = SizeOf(dtype);
    bytes.emplace_back(element * (size + 1));  // never empty
    host.push_back({bytes.back().data(), size, dtype, id, 0, 0});
    char* memory =
        static_cast<char*>(twin->Allocate(element * (size + offset + 1)));
    device.push_back({memory + element * offset, size, dtype, id, 0, 0});
  }

  void Upload(Twin* twin) const {
    for (int t = 0; t < size(); ++t) {
      twin->Upload(host[t].data, SizeOf(host[t].dtype) * host[t].size,
                   device[t].data);
    }
  }

  // Checks that device and host memory have the same bits.
  void CheckEqual(Twin* twin) const {
    for (int t = 0; t < size(); ++t) {
      const size_t count = SizeOf(host[t].dtype) * host[t].size;
      std::vector<char> found(count);
      twin->Download(device[t].data, count, found.data());
      CHECK(count == 0 || std::memcmp(found.data(), host[t].data, count) == 0);
    }
  }
};

template <typename T>
T* UploadVector(const std::vector<T>& values, Twin* twin) {
  void* memory = twin->Allocate(values.size() * sizeof(T) + 1);
  twin->Upload(values.data(), values.size() * sizeof(T), memory);
  return static_cast<T*>(memory);
}

template <typename T>
void CheckVector(const std::vector<T>& expected, const T* device, Twin* twin) {
  std::vector<T> found(expected.size());
  twin->Download(device, found.size() * sizeof(T), found.data());
  CHECK(found.empty() || std::memcmp(found.data(), expected.data(),
                                     found.size() * sizeof(T)) == 0);
}

inline void StoreElement(double value, int64_t i, const TernaryTensor& tensor) {
  switch (tensor.dtype) {
    case kTernaryFloat64:
      static_cast<double*>(tensor.data)[i] = value;
      break;
    case kTernaryFloat32:
      static_cast<float*>(tensor.data)[i] = static_cast<float>(value);
      break;
    case kTernaryFloat16:
      static_cast<uint16_t*>(tensor.data)[i] = ToFloat16(value);
      break;
    case kTernaryBfloat16:
      static_cast<uint16_t*>(tensor.data)[i] = ToBfloat16(value);
      break;
  }
}

// Normal values, or multiples of 1/256 of the largest (the byte then often
// decides exactly at its edge), or all equal.
inline void Fill(const TernaryTensor& tensor, std::mt19937* random) {
  std::normal_distribution<double> normal;
  const int kind = static_cast<int>((*random)() % 5);
  const bool is_half = tensor.dtype == kTernaryFloat16;
  const int exponent = static_cast<int>((*random)() % (is_half ? 20 : 200)) -
                       (is_half ? 16 : 110);
  for (int64_t i = 0; i < tensor.size; ++i) {
    double value = normal(*random);
    if (kind == 0) value = 0.25;
    if (kind == 1) value = static_cast<int>((*random)() % 513 - 256) / 64.0;
    if ((*random)() % 8 == 0) value = (*random)() % 2 ? 0.0 : -0.0;
    StoreElement(std::ldexp(value, exponent), i, tensor);
  }
  if (tensor.size > 0 && (*random)() % 6 == 0) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    StoreElement(bad[(*random)() % 3], (*random)() % tensor.size, tensor);
  }
}

// Scalers of either type, on both sides.
struct ScalerList {
  TernaryDtype dtype;
  std::vector<double> host;
  void* device;

  ScalerList(std::vector<double> values, TernaryDtype dtype, Twin* twin)
      : dtype(dtype), host(std::move(values)) {
    if (dtype == kTernaryFloat64) {
      device = UploadVector(host, twin);
      return;
    }
    std::vector<float> floats(host.begin(), host.end());
    host.assign(floats.begin(), floats.end());
    device = UploadVector(floats, twin);
  }

  void CheckEqual(const void* found, Twin* twin) const {
    if (dtype == kTernaryFloat64) {
      CheckVector(host, static_cast<const double*>(found), twin);
    } else {
      CheckVector(std::vector<float>(host.begin(), host.end()),
                  static_cast<const float*>(found), twin);
    }
  }
};

// Encodes on both sides, compares, returns the payload.
template <typename T>
std::vector<T> CheckEncode(const TensorList& list,
                           const TernaryEncodeOptions& options,
                           const ScalerList& clip_levels,
                           const ScalerList& scalers, int64_t length,
                           Twin* twin) {
  std::vector<T> payload(length);
  std::vector<int64_t> counts(2 * list.size(), 5);
  int64_t* counts_found = UploadVector(counts, twin);
  ternary_encode(list.host.data(), list.size(), &options,
                 clip_levels.host.data(), scalers.host.data(), payload.data(),
                 counts.data(), &kSerialPool);
  T* payload_found = UploadVector(std::vector<T>(length, T{77}), twin);
  twin->Encode(list.device.data(), list.size(), options, scalers.dtype,
               clip_levels.device, scalers.device, payload_found, counts_found);
  CheckVector(payload, payload_found, twin);
  CheckVector(counts, counts_found, twin);
  return payload;
}

template <typename T>
void CheckDecode(const std::vector<T>& payload, TernaryLayout layout,
                 TensorList* list, int64_t bucket_size, int64_t num_workers,
                 const ScalerList& scalers, Twin* twin) {
  CHECK(ternary_decode(payload.data(), layout, list->host.data(), list->size(),
                       bucket_size, num_workers, scalers.host.data(),
                       &kSerialPool) == num_workers);
  int64_t* guard = UploadVector(std::vector<int64_t>{-1}, twin);
  twin->Decode(UploadVector(payload, twin), layout, list->device.data(),
               list->size(), bucket_size, num_workers, scalers.dtype,
               scalers.device, guard);
  CheckVector({num_workers}, guard, twin);
  list->CheckEqual(twin);
}

// One random list of tensors through everything.
inline void TestRandomList(uint32_t seed, Twin* twin) {
  std::mt19937 random(seed);
  const int64_t bucket_sizes[] = {0, 0, 0, 1, 7, 16, 100, 512, 4097, 1 << 20};
  const int64_t worker_counts[] = {1, 2, 3, 8, 64, 64, 127, 127, 1000, 1 << 20};
  const int64_t bucket_size = bucket_sizes[random() % 10];
  const int64_t num_workers = worker_counts[random() % 10];
  const int num_tensors = random() % 8 == 0 ? 140 : 1 + random() % 7;
  TensorList list;
  TensorList decoded;
  int64_t buckets = 0;
  int64_t words = 1;
  int64_t groups = 0;
  bool has_double = false;
  for (int t = 0; t < num_tensors; ++t) {
    int64_t size = random() % 300;
    if (t == 0) size = random() % 20000;
    if (t == 0 && random() % 8 == 0) size = random() % 200000;
    if (random() % 8 == 0) size = 0;
    // Some lists of floats only, so that scalers are floats.
    const TernaryDtype dtype = static_cast<TernaryDtype>(
        seed % 2 ? random() % 4 : random() % 3 % 2 * 2);
    has_double |= dtype == kTernaryFloat64;
    const int64_t offset = random() % 3 == 0 ? random() % 8 : 0;
    const uint32_t id = random() & 0xFFFFFF;
    list.Add(size, dtype, id, offset, twin);
    Fill(list.host.back(), &random);
    decoded.Add(size, dtype, id, offset, twin);
    buckets += ternary_num_buckets(size, bucket_size);
  }
  list.Upload(twin);
  decoded.Upload(twin);
  const TernaryDtype scaler_dtype =
      has_double && random() % 4 != 0 ? kTernaryFloat64 : kTernaryFloat32;

  std::vector<double> own(buckets);
  const double clip_factor = random() % 3 == 0 ? 0.0 : 2.5;
  ternary_scalers(list.host.data(), list.size(), clip_factor, bucket_size,
                  own.data(), &kSerialPool);
  const ScalerList clip_levels(own, scaler_dtype, twin);
  void* found = twin->Allocate(8 * buckets + 1);
  twin->Scalers(list.device.data(), list.size(), clip_factor, bucket_size,
                scaler_dtype, found);
  clip_levels.CheckEqual(found, twin);

  // Other workers may have larger scalers.
  for (double& scaler : own) {
    if (random() % 3 == 0) scaler *= 1.0 + random() % 100 / 64.0;
    if (random() % 50 == 0) scaler = INFINITY;
  }
  const ScalerList scalers(own, scaler_dtype, twin);

  // The whole list, or a part of it.
  const int64_t num_parts = 1 + random() % 2 * (random() % 5);
  const int64_t part = random() % num_parts;
  for (auto* tensors :
       {&list.host, &list.device, &decoded.host, &decoded.device}) {
    ternary_cut(tensors->data(), num_tensors, part, num_parts);
  }
  for (const TernaryTensor& tensor : list.host) {
    const int64_t count = tensor.size - tensor.before - tensor.after;
    words += ternary_num_words(count, num_workers);
    groups += ternary_num_groups(count);
  }

  // Three workers' payloads stand for all.
  TernaryEncodeOptions options = {};
  options.bucket_size = bucket_size;
  options.num_workers = num_workers;
  options.seed = uint64_t{random()} << 32 | random();
  options.step = (uint64_t{random()} << 32 | random()) & ((1ull << 40) - 1);
  std::vector<uint64_t> sum(words);
  std::vector<std::vector<uint8_t>> trits;
  for (int64_t worker = 0; worker < std::min<int64_t>(3, num_workers);
       ++worker) {
    options.rank = static_cast<uint32_t>(random() & 0xFFFFFF);
    options.format = kTernaryWords;
    const std::vector<int64_t> payload =
        CheckEncode<int64_t>(list, options, clip_levels, scalers, words, twin);
    const uint64_t times = worker == 0 && num_workers > 3 ? num_workers - 2 : 1;
    for (int64_t w = 0; w < words; ++w) {
      sum[w] += times * static_cast<uint64_t>(payload[w]);
    }
    options.format = kTernaryTrits;
    trits.push_back(CheckEncode<uint8_t>(list, options, clip_levels, scalers,
                                         groups * kTernaryGroupBytes, twin));
  }
  CheckDecode(sum, kTernarySum, &decoded, bucket_size, num_workers, scalers,
              twin);

  if (num_workers > 1000) return;
  std::vector<uint8_t> parts;
  for (int64_t worker = 0; worker < num_workers; ++worker) {
    const std::vector<uint8_t>& part = trits[random() % trits.size()];
    parts.insert(parts.end(), part.begin(), part.end());
  }
  CheckDecode(parts, kTernaryGathered, &decoded, bucket_size, num_workers,
              scalers, twin);

  std::vector<int64_t> sums(
      ternary_num_words(groups * kTernaryGroup, num_workers));
  ternary_sum_trits(parts.data(), groups, num_workers, sums.data(),
                    &kSerialPool);
  int64_t* sums_found =
      UploadVector(std::vector<int64_t>(sums.size(), 77), twin);
  twin->SumTrits(UploadVector(parts, twin), groups, num_workers, sums_found);
  CheckVector(sums, sums_found, twin);
  CheckDecode(sums, kTernarySumOfTrits, &decoded, bucket_size, num_workers,
              scalers, twin);
}

// A wrong guard word: NaN everywhere.
inline void TestWrongGuard(Twin* twin) {
  TensorList list;
  for (int dtype = 0; dtype < 4; ++dtype) {
    list.Add(100, static_cast<TernaryDtype>(dtype), dtype, 0, twin);
  }
  const std::vector<int64_t> payload(4 * ternary_num_words(100, 2) + 1, 7);
  const ScalerList scalers({1.0, 1.0, 1.0, 1.0}, kTernaryFloat32, twin);
  int64_t* guard = UploadVector(std::vector<int64_t>{-1}, twin);
  twin->Decode(UploadVector(payload, twin), kTernarySum, list.device.data(),
               list.size(), 0, 2, kTernaryFloat32, scalers.device, guard);
  CheckVector({int64_t{7}}, guard, twin);
  for (int t = 0; t < list.size(); ++t) {
    for (int64_t i = 0; i < 100; ++i) StoreElement(NAN, i, list.host[t]);
  }
  list.CheckEqual(twin);
}

// More blocks of statistics than the sum of them takes at once.
inline void TestLongTensor(Twin* twin) {
  std::mt19937 random(3);
  TensorList list;
  list.Add((int64_t{1} << 22) + (1 << 20) + 4321, kTernaryFloat16, 5, 0, twin);
  for (int64_t i = 0; i < list.host[0].size; ++i) {
    static_cast<uint16_t*>(list.host[0].data)[i] =
        static_cast<uint16_t>(random() & 0xBFFFu);
  }
  list.Upload(twin);
  double scaler;
  ternary_scalers(list.host.data(), 1, 1.0, 0, &scaler, &kSerialPool);
  double* found = UploadVector(std::vector<double>{0.0}, twin);
  twin->Scalers(list.device.data(), 1, 1.0, 0, kTernaryFloat64, found);
  CheckVector({scaler}, found, twin);
}

inline void TestTwin(int num_lists, Twin* twin) {
  TestWrongGuard(twin);
  TestLongTensor(twin);
  twin->FreeAll();
  for (int i = 0; i < num_lists; ++i) {
    TestRandomList(static_cast<uint32_t>(i), twin);
    twin->FreeAll();
  }
}

}  // namespace cuda
}  // namespace ternary

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_CUDA_TEST_H_
