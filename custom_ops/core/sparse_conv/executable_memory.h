// Memory with machine code in it: written first, executable then, never both.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sparse_conv {

class ExecutableMemory {
 public:
  // Memory to write code to. Null where the system refuses.
  static std::unique_ptr<ExecutableMemory> Allocate(int64_t size);
  // Makes it executable and no longer writable. False where that is refused.
  bool Seal();
  ~ExecutableMemory();
  ExecutableMemory(const ExecutableMemory&) = delete;
  ExecutableMemory& operator=(const ExecutableMemory&) = delete;

  uint8_t* writable() { return data_; }
  const uint8_t* data() const { return data_; }

 private:
  ExecutableMemory(uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t* data_;
  size_t size_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_
