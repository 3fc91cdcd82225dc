// What the ops of the sparse convolution keep from call to call, and
// TensorFlow's threads and memory as the core sees them.
//
// What follows from the positions of the non-zeros is prepared once. An op
// holds on to the tensors that it has seen last, so that the same buffer means
// the same contents; the process keeps patterns by contents.

#ifndef CUSTOM_OPS_TF_SPARSE_CONV_PREPARED_H_
#define CUSTOM_OPS_TF_SPARSE_CONV_PREPARED_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv.h"
#include "custom_ops/tf/sparse_conv_attributes.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/threadpool.h"

namespace tensorflow {
namespace {

// --- Threads and memory ------------------------------------------------------

class Pool {
 public:
  explicit Pool(OpKernelContext* context)
      : threads_(context->device()->tensorflow_cpu_worker_threads()->workers) {
    pool_.run = [](void* pool, int64_t items, int64_t cost,
                   void (*body)(void*, int64_t, int64_t), void* data) {
      // TensorFlow counts in cycles.
      static_cast<thread::ThreadPool*>(pool)->ParallelFor(
          items, 3 * cost,
          [=](int64_t begin, int64_t end) { body(data, begin, end); });
    };
    pool_.pool = threads_;
    pool_.num_threads = threads_->NumThreads();
  }

  const SparseConvPool* get() const { return &pool_; }

 private:
  thread::ThreadPool* threads_;
  SparseConvPool pool_ = {};
};

// Memory for one call: TensorFlow's temporary tensors. A few of them stay for
// later calls, of any op: TensorFlow's CPU allocator gives large blocks back to
// the system, and to get them again costs a page fault a page.
class Scratch {
 public:
  explicit Scratch(OpKernelContext* context) : context_(context) {
    allocator_.allocate = [](void* scratch, size_t bytes) -> void* {
      return static_cast<Scratch*>(scratch)->Allocate(bytes);
    };
    allocator_.context = this;
  }

  ~Scratch() {
    for (Tensor& tensor : tensors_) Kept::Get().Give(std::move(tensor));
  }

  const SparseConvAllocator* get() const { return &allocator_; }

 private:
  class Kept {
   public:
    static Kept& Get() {
      static Kept* const kept = new Kept();
      return *kept;
    }

    // The smallest that is large enough; false if there is none.
    bool Take(int64_t bytes, Tensor* tensor) {
      std::lock_guard<std::mutex> lock(mutex_);
      auto found = tensors_.end();
      for (auto it = tensors_.begin(); it != tensors_.end(); ++it) {
        if (it->NumElements() >= bytes &&
            (found == tensors_.end() ||
             it->NumElements() < found->NumElements())) {
          found = it;
        }
      }
      if (found == tensors_.end()) return false;
      *tensor = std::move(*found);
      tensors_.erase(found);
      return true;
    }

    void Give(Tensor tensor) {
      if (tensor.NumElements() > kMostBytes) return;
      std::lock_guard<std::mutex> lock(mutex_);
      tensors_.push_back(std::move(tensor));
      if (tensors_.size() <= kMostTensors) return;
      tensors_.erase(std::min_element(tensors_.begin(), tensors_.end(),
                                      [](const Tensor& a, const Tensor& b) {
                                        return a.NumElements() <
                                               b.NumElements();
                                      }));
    }

   private:
    static constexpr size_t kMostTensors = 4;
    static constexpr int64_t kMostBytes = int64_t{64} << 20;

    std::mutex mutex_;
    std::vector<Tensor> tensors_;
  };

  void* Allocate(size_t bytes) {
    Tensor tensor;
    const int64_t size = std::max<int64_t>(1, static_cast<int64_t>(bytes));
    if (!Kept::Get().Take(size, &tensor) &&
        !context_->allocate_temp(DT_UINT8, TensorShape({size}), &tensor).ok()) {
      return nullptr;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    tensors_.push_back(std::move(tensor));
    return const_cast<char*>(tensors_.back().tensor_data().data());
  }

  OpKernelContext* const context_;
  std::mutex mutex_;
  std::list<Tensor> tensors_;
  SparseConvAllocator allocator_ = {};
};

// --- Patterns and values -----------------------------------------------------

using Values = std::shared_ptr<SparseConvValues>;

// A pattern, and the values in it that an op has prepared last: those that the
// convolution uses in a step of training its gradient uses too.
class Prepared {
 public:
  static Status Make(const SparseConvGeometry& geometry,
                     const Tensor& positions, const std::string& kernel,
                     const SparseConvPool* pool,
                     std::shared_ptr<Prepared>* prepared) {
    SparseConvPattern* pattern = nullptr;
    SparseConvError error;
    const SparseConvOptions options = {kernel.empty() ? nullptr
                                                      : kernel.c_str()};
    const SparseConvCode code =
        positions.dtype() == DT_INT64
            ? sparse_conv_pattern_create_int64(
                  &geometry, positions.flat<int64_t>().data(),
                  positions.NumElements(), &options, pool, &pattern, &error)
            : sparse_conv_pattern_create_int32(
                  &geometry, positions.flat<int32_t>().data(),
                  positions.NumElements(), &options, pool, &pattern, &error);
    TF_RETURN_IF_ERROR(ToStatus(code, error));
    *prepared = std::make_shared<Prepared>(pattern);
    return OkStatus();
  }

  explicit Prepared(SparseConvPattern* pattern)
      : pattern_(pattern, sparse_conv_pattern_release) {}

  SparseConvPattern* pattern() const { return pattern_.get(); }

  Status FindValues(const Tensor& tensor, const SparseConvPool* pool,
                    Values* found) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (values_ == nullptr || !SameBuffer(tensor_, tensor)) {
      SparseConvValues* made = nullptr;
      SparseConvError error;
      TF_RETURN_IF_ERROR(ToStatus(
          sparse_conv_values_create(pattern(), tensor.tensor_data().data(),
                                    tensor.dtype() == DT_BFLOAT16
                                        ? kSparseConvBfloat16
                                        : kSparseConvFloat32,
                                    pool, &made, &error),
          error));
      values_.reset(made, sparse_conv_values_release);
      tensor_ = tensor;
    }
    *found = values_;
    return OkStatus();
  }

 private:
  const std::shared_ptr<SparseConvPattern> pattern_;
  std::mutex mutex_;
  Tensor tensor_;
  Values values_;
};

// The patterns of the process, the last used first.
class PatternCache {
 public:
  static PatternCache& Get() {
    static PatternCache* const cache = new PatternCache();
    return *cache;
  }

  Status Find(const SparseConvGeometry& geometry, const Tensor& positions,
              const std::string& kernel, const SparseConvPool* pool,
              std::shared_ptr<Prepared>* prepared) {
    Entry entry = {Numbers(geometry), kernel, positions, Hash(positions),
                   nullptr};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto it = entries_.begin(); it != entries_.end(); ++it) {
        if (it->Matches(entry)) {
          *prepared = it->prepared;
          entries_.splice(entries_.begin(), entries_, it);
          return OkStatus();
        }
      }
    }
    TF_RETURN_IF_ERROR(
        Prepared::Make(geometry, positions, kernel, pool, &entry.prepared));
    *prepared = entry.prepared;
    std::lock_guard<std::mutex> lock(mutex_);
    entries_.push_front(std::move(entry));
    // They grow as calls use them: all are weighed again.
    int64_t bytes = 0;
    size_t keep = 0;
    for (auto it = entries_.begin(); it != entries_.end(); ++it, ++keep) {
      bytes += sparse_conv_pattern_bytes(it->prepared->pattern());
      if (keep > 0 && (keep == kMostPatterns || bytes > kMostBytes)) {
        entries_.erase(it, entries_.end());  // those in use live on
        break;
      }
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kMostPatterns = 512;
  static constexpr int64_t kMostBytes = int64_t{1} << 30;
  using GeometryNumbers = std::array<int64_t, 16>;

  struct Entry {
    GeometryNumbers geometry;
    std::string kernel;
    Tensor positions;
    uint64_t hash;
    std::shared_ptr<Prepared> prepared;

    bool Matches(const Entry& other) const {
      return hash == other.hash && geometry == other.geometry &&
             kernel == other.kernel &&
             positions.dtype() == other.positions.dtype() &&
             positions.tensor_data() == other.positions.tensor_data();
    }
  };

  static uint64_t Hash(const Tensor& positions) {
    const char* data = positions.tensor_data().data();
    uint64_t hash = 0x9E3779B97F4A7C15u;
    // Words of two positions; the last one of an odd number by itself.
    for (size_t left = positions.tensor_data().size(); left > 0;) {
      uint64_t word = 0;
      const size_t bytes = std::min<size_t>(left, sizeof(word));
      std::memcpy(&word, data, bytes);
      hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
      hash ^= hash >> 32;
      data += bytes;
      left -= bytes;
    }
    return hash;
  }

  static GeometryNumbers Numbers(const SparseConvGeometry& g) {
    return {g.height,          g.width,
            g.in_channels,     g.filter_height,
            g.filter_width,    g.out_channels,
            g.stride_height,   g.stride_width,
            g.dilation_height, g.dilation_width,
            g.pad_top,         g.pad_bottom,
            g.pad_left,        g.pad_right,
            g.groups,          static_cast<int64_t>(g.format)};
  }

  std::mutex mutex_;
  std::list<Entry> entries_;
};

// --- What an op holds --------------------------------------------------------

class SparseConvOp : public OpKernel {
 public:
  explicit SparseConvOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, attributes_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("kernel", &kernel_));
  }

 protected:
  // Held tensors keep their buffers: no other contents can come to be there.
  Status FindPattern(const SparseConvGeometry& geometry,
                     const Tensor& positions, const Pool& pool,
                     std::shared_ptr<Prepared>* prepared) {
    TF_RETURN_IF_ERROR(CheckPositions(positions));
    std::lock_guard<std::mutex> lock(mutex_);
    if (prepared_ == nullptr || !SameBuffer(positions_, positions) ||
        !SameSizes(*sparse_conv_pattern_geometry(prepared_->pattern()),
                   geometry)) {
      std::shared_ptr<Prepared> found;
      TF_RETURN_IF_ERROR(PatternCache::Get().Find(geometry, positions, kernel_,
                                                  pool.get(), &found));
      prepared_ = found;
      positions_ = positions;
      values_ = nullptr;
    }
    *prepared = prepared_;
    return OkStatus();
  }

  Status FindValues(const SparseConvGeometry& geometry, const Tensor& positions,
                    const Tensor& values, const Pool& pool, Values* found) {
    TF_RETURN_IF_ERROR(CheckValues(values, positions));
    std::shared_ptr<Prepared> prepared;
    TF_RETURN_IF_ERROR(FindPattern(geometry, positions, pool, &prepared));
    std::lock_guard<std::mutex> lock(mutex_);
    if (values_ == nullptr || prepared_ != prepared ||
        !SameBuffer(values_tensor_, values)) {
      TF_RETURN_IF_ERROR(prepared->FindValues(values, pool.get(), found));
      if (prepared_ == prepared) {
        values_ = *found;
        values_tensor_ = values;
      }
      return OkStatus();
    }
    *found = values_;
    return OkStatus();
  }

  Attributes attributes_;

 private:
  // The rest are attributes.
  static bool SameSizes(const SparseConvGeometry& a,
                        const SparseConvGeometry& b) {
    return a.height == b.height && a.width == b.width &&
           a.in_channels == b.in_channels;
  }

  std::string kernel_;
  std::mutex mutex_;
  Tensor positions_;
  std::shared_ptr<Prepared> prepared_;
  Tensor values_tensor_;
  Values values_;
};

}  // namespace
}  // namespace tensorflow

#endif  // CUSTOM_OPS_TF_SPARSE_CONV_PREPARED_H_
