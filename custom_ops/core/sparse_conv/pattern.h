// What stands behind the handles of sparse_conv.h.
//
// A pattern makes what a call needs when a call first needs it: a prepared
// program for each purpose and layout. Values keep a stream of weights for each
// prepared program.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "custom_ops/core/sparse_conv/choice.h"
#include "custom_ops/core/sparse_conv/geometry.h"
#include "custom_ops/core/sparse_conv/kernels.h"
#include "custom_ops/core/sparse_conv/nonzero.h"
#include "custom_ops/core/sparse_conv/program.h"
#include "custom_ops/core/sparse_conv/schedule.h"

namespace sparse_conv {

enum Purpose { kForward = 0, kGradInput = 1, kGradValues = 2, kPurposes = 3 };
constexpr int kLayouts = 2;

// Something made once, by the first thread that needs it. One that threw is
// made by the next.
template <typename T>
class Lazy {
 public:
  template <typename Make>
  const T& Get(const Make& make) const {
    if (!made_.load(std::memory_order_acquire)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!made_.load(std::memory_order_relaxed)) {
        value_ = make();
        made_.store(true, std::memory_order_release);
      }
    }
    return value_;
  }
  // Null if it has not been made.
  const T* Peek() const {
    return made_.load(std::memory_order_acquire) ? &value_ : nullptr;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::atomic<bool> made_{false};
  mutable T value_{};
};

}  // namespace sparse_conv

struct SparseConvPattern {
  sparse_conv::Geometry geometry;
  sparse_conv::Choice choice;
  // The non-zeros of output channel o, in ascending positions:
  // nonzeros[rows[o]] to nonzeros[rows[o + 1]].
  std::vector<int64_t> rows;
  std::vector<sparse_conv::Nonzero> nonzeros;

  const sparse_conv::Program& ProgramOf(sparse_conv::Purpose purpose) const;
  const sparse_conv::Schedule& ScheduleOf(sparse_conv::Purpose purpose,
                                          sparse_conv::Layout layout,
                                          const SparseConvPool* pool) const;
  int64_t bytes() const;       // of what has been made
  int64_t code_bytes() const;  // generated code in it

  sparse_conv::Lazy<sparse_conv::Program> programs[2];
  sparse_conv::Lazy<sparse_conv::Schedule> schedules[sparse_conv::kPurposes]
                                                    [sparse_conv::kLayouts];
  std::atomic<int64_t> references{1};
};

struct SparseConvValues {
  SparseConvPattern* pattern;  // one reference
  std::vector<float> weights;  // in the order of the positions

  const std::vector<float>& StreamOf(sparse_conv::Purpose purpose,
                                     sparse_conv::Layout layout,
                                     const SparseConvPool* pool) const;

  sparse_conv::Lazy<std::vector<float>> streams[sparse_conv::kPurposes]
                                               [sparse_conv::kLayouts];
  std::atomic<int64_t> references{1};
};

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_PATTERN_H_
