// The caller's threads and memory.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_

#include <cstdint>
#include <cstdlib>
#include <type_traits>

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

// One block of the caller's memory, aligned to a cache line.
class Scratch {
 public:
  Scratch(const SparseConvAllocator* allocator, int64_t bytes)
      : allocator_(allocator) {
    const size_t padded = static_cast<size_t>(bytes) + kLine;
    memory_ = allocator_ != nullptr && allocator_->allocate != nullptr
                  ? allocator_->allocate(allocator_->context, padded)
                  : std::malloc(padded);
  }
  ~Scratch() {
    if (memory_ == nullptr) return;
    if (allocator_ == nullptr || allocator_->allocate == nullptr) {
      std::free(memory_);
    } else if (allocator_->release != nullptr) {
      allocator_->release(allocator_->context, memory_);
    }
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
  const SparseConvAllocator* allocator_;
  void* memory_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_PARALLEL_H_
