// Time of the codec against one read and one write pass over the same memory,
// by as many threads, in the same run. "encode" is all that a worker does
// before the exchange: statistics, ternarizing, packing. "decode" is all that
// it does after: the payload of N workers to the averaged gradient.
//
//   ternary_benchmark [elements, default 16777216] [rounds, default 11]

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "custom_ops/core/ternary/ternary.h"

namespace {

// Threads that take eight items at a time.
void RunOnThreads(void* pool, int64_t items, int64_t /*cost*/,
                  void (*body)(void*, int64_t, int64_t), void* context) {
  constexpr int64_t kGrain = 8;
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next.fetch_add(kGrain); i < items;
         i = next.fetch_add(kGrain)) {
      body(context, i, std::min(items, i + kGrain));
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < *static_cast<int*>(pool); ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
}

struct Case {
  std::string name;
  size_t pass;  // the case that this one is compared with
  std::function<void()> run;
  std::vector<double> ms = {};

  double Quantile(double q) const {
    std::vector<double> sorted = ms;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(q * (sorted.size() - 1))];
  }
};

class Benchmark {
 public:
  explicit Benchmark(int64_t size)
      : size_(size), gradient_(size), decoded_(size), sums_(size / kChunk + 1) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : gradient_) value = normal(random);
    ternary_scalers(&input_, 1, 2.5, 0, &scaler_, &pools_[0]);
  }

  // Rows for one of the pools.
  void Add(const TernaryPool* pool) {
    const size_t read = cases_.size();
    const size_t write = read + 1;
    cases_.push_back({"read pass (sum)", read, [=] { ReadPass(pool); }});
    cases_.push_back({"write pass (fill)", write, [=] { WritePass(pool); }});
    cases_.push_back({"statistics", read, [=] {
                        ternary_scalers(&input_, 1, 2.5, 0, &scaler_, pool);
                      }});
    payloads_.emplace_back(
        (ternary_num_groups(size_) * kTernaryGroupBytes + 7) / 8);
    int64_t* trits = payloads_.back().data();
    cases_.push_back({"encode to trits", read,
                      [=] { Encode(1, kTernaryTrits, trits, pool); }});
    for (const int64_t num_workers : {2, 8, 64}) {
      payloads_.emplace_back(ternary_num_words(size_, num_workers) + 1);
      int64_t* words = payloads_.back().data();
      const std::string suffix = ", N = " + std::to_string(num_workers);
      cases_.push_back({"encode to words" + suffix, read, [=] {
                          Encode(num_workers, kTernaryWords, words, pool);
                        }});
      cases_.push_back({"decode words" + suffix, write, [=] {
                          words[ternary_num_words(size_, num_workers)] =
                              num_workers;
                          Decode(num_workers, kTernarySum, words, pool);
                        }});
    }
    // As if all workers had sent the same.
    for (const int64_t num_workers : {2, 8}) {
      const size_t bytes = ternary_num_groups(size_) * kTernaryGroupBytes;
      payloads_.emplace_back((num_workers * bytes + 7) / 8);
      int64_t* parts = payloads_.back().data();
      Encode(1, kTernaryTrits, trits, pool);
      for (int64_t worker = 0; worker < num_workers; ++worker) {
        std::memcpy(reinterpret_cast<char*>(parts) + worker * bytes, trits,
                    bytes);
      }
      cases_.push_back(
          {"decode trits, N = " + std::to_string(num_workers), write,
           [=] { Decode(num_workers, kTernaryGathered, parts, pool); }});
    }
  }

  void Run(int rounds) {
    for (int round = 0; round <= rounds; ++round) {
      for (Case& c : cases_) {
        const auto start = std::chrono::steady_clock::now();
        c.run();
        const double ms = std::chrono::duration<double, std::milli>(
                              std::chrono::steady_clock::now() - start)
                              .count();
        if (round > 0) c.ms.push_back(ms);  // the first one warms up
      }
    }
  }

  void Print() const {
    std::printf("%-24s%21s%21s\n%-24s%9s%12s%9s%12s\n", "", "minimum", "median",
                "", "ms", "x pass", "ms", "x pass");
    for (size_t i = 0; i < cases_.size(); ++i) {
      const Case& c = cases_[i];
      if (c.name.rfind("read pass", 0) == 0) {
        std::printf("-- %s\n", i == 0 ? "one thread" : "two threads");
      }
      std::printf("%-24s", c.name.c_str());
      for (const double q : {0.0, 0.5}) {
        const double ms = c.Quantile(q);
        std::printf("%9.2f%12.2f", ms, ms / cases_[c.pass].Quantile(q));
      }
      std::printf("\n");
    }
  }

  const TernaryPool* pool(int i) const { return &pools_[i]; }

 private:
  static constexpr int64_t kChunk = 8192;

  // Calls body(first, count) for all chunks.
  template <typename Body>
  void ForEachChunk(const TernaryPool* pool, const Body& body) {
    const auto call = [&](int64_t chunk) {
      body(chunk * kChunk, std::min(kChunk, size_ - chunk * kChunk));
    };
    pool->run(
        pool->pool, (size_ + kChunk - 1) / kChunk, 2000,
        [](void* context, int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            (*static_cast<decltype(call)*>(context))(i);
          }
        },
        const_cast<void*>(static_cast<const void*>(&call)));
  }

  void ReadPass(const TernaryPool* pool) {
    ForEachChunk(pool, [&](int64_t first, int64_t count) {
      float lanes[32] = {};
      for (int64_t i = 0; i + 32 <= count; i += 32) {
        for (int l = 0; l < 32; ++l) lanes[l] += gradient_[first + i + l];
      }
      sums_[first / kChunk] = std::accumulate(lanes, lanes + 32, 0.0f);
    });
  }

  void WritePass(const TernaryPool* pool) {
    ForEachChunk(pool, [&](int64_t first, int64_t count) {
      std::fill_n(decoded_.begin() + first, count, 1.0f);
    });
  }

  void Encode(int64_t num_workers, TernaryFormat format, void* payload,
              const TernaryPool* pool) {
    const TernaryEncodeOptions options = {0, num_workers, 1, 2, 0, format};
    int64_t counts[2] = {};
    ternary_scalers(&input_, 1, 2.5, 0, &scaler_, pool);
    ternary_encode(&input_, 1, &options, &scaler_, &scaler_, payload, counts,
                   pool);
  }

  void Decode(int64_t num_workers, TernaryLayout layout, const void* payload,
              const TernaryPool* pool) {
    ternary_decode(payload, layout, &output_, 1, 0, num_workers, &scaler_,
                   pool);
  }

  int64_t size_;
  std::vector<float> gradient_;
  std::vector<float> decoded_;
  std::vector<float> sums_;
  TernaryTensor input_ = {gradient_.data(), size_, kTernaryFloat32, 0, 0, 0};
  TernaryTensor output_ = {decoded_.data(), size_, kTernaryFloat32, 0, 0, 0};
  int num_threads_[2] = {1, 2};
  TernaryPool pools_[2] = {{RunOnThreads, &num_threads_[0]},
                           {RunOnThreads, &num_threads_[1]}};
  double scaler_ = 0.0;
  std::vector<std::vector<int64_t>> payloads_;
  std::vector<Case> cases_;
};

}  // namespace

int main(int argc, char** argv) {
  const int64_t size = argc > 1 ? std::atoll(argv[1]) : int64_t{1} << 24;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 11;
  Benchmark benchmark(size);
  benchmark.Add(benchmark.pool(0));
  benchmark.Add(benchmark.pool(1));
  benchmark.Run(rounds);
  std::printf("%lld floats, %s, %d interleaved rounds\n",
              static_cast<long long>(size), ternary_isa(), rounds);
  benchmark.Print();
  return 0;
}
