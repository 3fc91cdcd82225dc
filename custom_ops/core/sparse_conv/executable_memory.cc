#include "custom_ops/core/sparse_conv/executable_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "custom_ops/core/sparse_conv/sparse_conv.h"

namespace sparse_conv {

std::unique_ptr<ExecutableMemory> ExecutableMemory::Allocate(int64_t size) {
  if (size <= 0) return nullptr;
  void* memory =
      mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  return std::unique_ptr<ExecutableMemory>(new ExecutableMemory(
      static_cast<uint8_t*>(memory), static_cast<size_t>(size)));
}

bool ExecutableMemory::Seal() {
  return mprotect(data_, size_, PROT_READ | PROT_EXEC) == 0;
}

ExecutableMemory::~ExecutableMemory() { munmap(data_, size_); }

}  // namespace sparse_conv

extern "C" int sparse_conv_executable_memory(void) {
#if defined(__x86_64__)
  static const bool kAllowed = [] {
    const char* wish = std::getenv("SPARSE_CONV_JIT");
    if (wish != nullptr && std::strcmp(wish, "0") == 0) return false;
    const auto memory = sparse_conv::ExecutableMemory::Allocate(1);
    return memory != nullptr && memory->Seal();
  }();
  return kAllowed;
#else
  return 0;
#endif
}
