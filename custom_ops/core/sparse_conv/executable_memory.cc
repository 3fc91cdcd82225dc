#include "custom_ops/core/sparse_conv/executable_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "custom_ops/core/sparse_conv/sparse_conv.h"

namespace sparse_conv {

std::shared_ptr<const ExecutableMemory> ExecutableMemory::Make(
    const std::vector<std::vector<uint8_t>>& parts) {
  size_t size = 0;
  for (const std::vector<uint8_t>& part : parts) size += part.size();
  if (size == 0) return nullptr;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  uint8_t* next = static_cast<uint8_t*>(memory);
  for (const std::vector<uint8_t>& part : parts) {
    if (!part.empty()) std::memcpy(next, part.data(), part.size());
    next += part.size();
  }
  if (mprotect(memory, size, PROT_READ | PROT_EXEC) != 0) {
    munmap(memory, size);
    return nullptr;
  }
  return std::shared_ptr<const ExecutableMemory>(
      new ExecutableMemory(static_cast<uint8_t*>(memory), size));
}

ExecutableMemory::~ExecutableMemory() { munmap(data_, size_); }

}  // namespace sparse_conv

extern "C" int sparse_conv_executable_memory(void) {
#if defined(__x86_64__)
  static const bool kAllowed = [] {
    const char* wish = std::getenv("SPARSE_CONV_JIT");
    if (wish != nullptr && std::strcmp(wish, "0") == 0) return false;
    return sparse_conv::ExecutableMemory::Make({{0xc3}}) != nullptr;
  }();
  return kAllowed;
#else
  return 0;
#endif
}
