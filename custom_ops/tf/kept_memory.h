// Memory of large outputs that an op keeps from step to step. TensorFlow's CPU
// allocator gives large blocks back to the system; getting them again, page by
// page, takes longer than decoding gradients into them.

#ifndef CUSTOM_OPS_TF_KEPT_MEMORY_H_
#define CUSTOM_OPS_TF_KEPT_MEMORY_H_

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

#include "tensorflow/core/framework/allocation_description.pb.h"
#include "tensorflow/core/framework/tensor.h"

namespace tensorflow {
namespace {

// One block at most. It is handed out while nobody else has it, and comes back
// when the last tensor that uses it is gone; blocks that find the place taken
// are freed.
class KeptMemory : public std::enable_shared_from_this<KeptMemory> {
 public:
  static constexpr size_t kAlignment = 64;
  // Below, the C library keeps freed memory itself.
  static constexpr size_t kMinBytes = size_t{1} << 20;

  ~KeptMemory() { std::free(block_); }

  // A tensor with undefined elements; false if there is not enough memory.
  bool Allocate(DataType dtype, const TensorShape& shape, Tensor* tensor) {
    const size_t bytes = DataTypeSize(dtype) * shape.num_elements();
    void* block = Take(bytes);
    if (block == nullptr) block = New(bytes);
    if (block == nullptr) return false;
    *tensor = Tensor(dtype, shape,
                     core::RefCountPtr<TensorBuffer>(
                         new Buffer(block, bytes, shared_from_this())));
    return true;
  }

 private:
  class Buffer : public TensorBuffer {
   public:
    Buffer(void* block, size_t bytes, std::shared_ptr<KeptMemory> memory)
        : TensorBuffer(block), bytes_(bytes), memory_(std::move(memory)) {}
    ~Buffer() override { memory_->GiveBack(data(), bytes_); }

    size_t size() const override { return bytes_; }
    TensorBuffer* root_buffer() override { return this; }
    void FillAllocationDescription(
        AllocationDescription* proto) const override {
      proto->set_requested_bytes(static_cast<int64_t>(bytes_));
      proto->set_allocator_name("kept_memory");
    }

   private:
    const size_t bytes_;
    const std::shared_ptr<KeptMemory> memory_;
  };

  static void* New(size_t bytes) {
    void* block = nullptr;
    if (posix_memalign(&block, kAlignment, bytes) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t kHugePage = uintptr_t{1} << 21;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(block);
    const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t last = (begin + bytes) / kHugePage * kHugePage;
    if (first < last) {  // only a hint
      madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    }
#endif
    return block;
  }

  // The kept block, if it has that size; one of another size is freed.
  void* Take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    void* block = block_;
    block_ = nullptr;
    if (bytes_ == bytes) return block;
    std::free(block);
    return nullptr;
  }

  void GiveBack(void* block, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (block_ != nullptr) {
      std::free(block);
      return;
    }
    block_ = block;
    bytes_ = bytes;
  }

  std::mutex mutex_;
  void* block_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace
}  // namespace tensorflow

#endif  // CUSTOM_OPS_TF_KEPT_MEMORY_H_
