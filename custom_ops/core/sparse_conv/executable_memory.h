// Memory with machine code in it: written first, executable then, never both.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sparse_conv {

class ExecutableMemory {
 public:
  // The parts one after the other. Null where the system refuses.
  static std::shared_ptr<const ExecutableMemory> Make(
      const std::vector<std::vector<uint8_t>>& parts);
  ~ExecutableMemory();
  ExecutableMemory(const ExecutableMemory&) = delete;
  ExecutableMemory& operator=(const ExecutableMemory&) = delete;

  const uint8_t* data() const { return data_; }
  int64_t size() const { return static_cast<int64_t>(size_); }

 private:
  ExecutableMemory(uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t* data_;
  size_t size_;
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_EXECUTABLE_MEMORY_H_
