// The caller's threads and memory.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_

#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <utility>

#include "custom_ops/core/sparse_conv/sparse_conv.h"

namespace sparse_conv {

// Runs body(begin, end) over [0, items) on the pool, or here without one.
template <typename Body>
void Parallel(const SparseConvPool* pool, int64_t items, int64_t cost,
              Body&& body) {
  if (items <= 0) return;
  if (pool == nullptr || pool->run == nullptr || items == 1) {
    body(int64_t{0}, items);
    return;
  }
  using Type = std::remove_reference_t<Body>;
  pool->run(
      pool->pool, items, cost,
      [](void* context, int64_t begin, int64_t end) {
        (*static_cast<Type*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// One block of memory, aligned to a cache line: the caller's, or, without an
// allocator, one that stays with the thread for its next call (large blocks
// that are given back to the system cost a page fault a page to get again).
class Scratch {
 public:
  Scratch(const SparseConvAllocator* allocator, int64_t bytes)
      : allocator_(allocator != nullptr && allocator->allocate != nullptr
                       ? allocator
                       : nullptr),
        bytes_(static_cast<size_t>(bytes) + kLine) {
    if (allocator_ != nullptr) {
      memory_ = allocator_->allocate(allocator_->context, bytes_);
      return;
    }
    Block& kept = Kept();
    if (kept.bytes >= bytes_) {
      memory_ = kept.memory;
      bytes_ = kept.bytes;
      kept.memory = nullptr;
      kept.bytes = 0;
    } else {
      memory_ = std::malloc(bytes_);
    }
  }
  ~Scratch() {
    if (memory_ == nullptr) return;
    if (allocator_ != nullptr) {
      if (allocator_->release != nullptr) {
        allocator_->release(allocator_->context, memory_);
      }
      return;
    }
    Block& kept = Kept();
    if (kept.bytes < bytes_ && bytes_ <= kMostKept) {
      std::swap(kept.memory, memory_);
      kept.bytes = bytes_;
    }
    std::free(memory_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Null where there was no memory.
  float* data() const {
    if (memory_ == nullptr) return nullptr;
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    return reinterpret_cast<float*>((address + kLine - 1) / kLine * kLine);
  }

 private:
  static constexpr size_t kLine = 64;
  static constexpr size_t kMostKept = size_t{64} << 20;

  struct Block {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Block() { std::free(memory); }
  };
  static Block& Kept() {
    thread_local Block kept;
    return kept;
  }

  const SparseConvAllocator* allocator_;
  size_t bytes_;
  void* memory_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_
