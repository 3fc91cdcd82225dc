#include "custom_ops/core/sparse_conv/choice.h"

#include <cstring>
#include <vector>

namespace sparse_conv {
namespace {

// In descending order of speed.
std::vector<Choice>& Choices() {
  static std::vector<Choice> choices = [] {
    std::vector<Choice> made;
    const Kernels* active = ActiveKernels();
    static const struct {
      const char* isa;
      const JitTarget* jit;
      bool jit_first;  // code is faster than lists
      const char* names[4];
    } kSets[] = {
#if defined(__x86_64__)
        {"avx512",
         &kAvx512Jit,
         true,
         {"avx512_jit", "avx512", "avx512_planes", "avx512_interleaved"}},
        {"avx2",
         &kAvx2Jit,
         false,
         {"avx2_jit", "avx2", "avx2_planes", "avx2_interleaved"}},
#endif
    };
    bool below = false;  // the active set and those under it
    for (const auto& set : kSets) {
      below = below ||
              (active != nullptr && std::strcmp(active->name, set.isa) == 0);
      const Kernels* kernels = below ? FindKernels(set.isa) : nullptr;
      if (kernels == nullptr) continue;
      const Choice code = {set.names[0], kernels, true, true, set.jit};
      const bool coded = sparse_conv_executable_memory() != 0;
      if (coded && set.jit_first) made.push_back(code);
      made.push_back({set.names[1], kernels, true, true, nullptr});
      made.push_back({set.names[2], kernels, true, false, nullptr});
      made.push_back({set.names[3], kernels, false, true, nullptr});
      if (coded && !set.jit_first) made.push_back(code);
    }
    made.push_back(Choice());
    return made;
  }();
  return choices;
}

}  // namespace

const char* KernelName(int index) {
  const std::vector<Choice>& choices = Choices();
  return index >= 0 && index < static_cast<int>(choices.size())
             ? choices[index].name
             : nullptr;
}

void AddChoice(const Choice& choice) {
  Choices().insert(Choices().end() - 1, choice);
}

bool Choose(const char* name, Choice* choice) {
  for (const Choice& candidate : Choices()) {
    if (name == nullptr || std::strcmp(name, candidate.name) == 0) {
      *choice = candidate;
      return true;
    }
  }
  return false;
}

int64_t InterleavedImages(const Choice& choice, bool local_or_code,
                          int64_t batch) {
  if (!choice.interleaved) return 0;
  if (!choice.planes) return batch;
  if (local_or_code) return 0;
  // A group that is not full costs as much as one that is.
  const int64_t lanes = choice.kernels->lanes;
  const int64_t rest = batch % lanes;
  return rest * 4 >= lanes * 3 ? batch : batch - rest;
}

}  // namespace sparse_conv
