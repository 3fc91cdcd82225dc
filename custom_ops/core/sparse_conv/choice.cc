#include "custom_ops/core/sparse_conv/choice.h"

#include <cstring>

namespace sparse_conv {
namespace {

// In descending order of speed.
const Choice* Choices(int* count) {
  static Choice choices[7];
  static const int kCount = [] {
    int made = 0;
    const Kernels* active = ActiveKernels();
    static const struct {
      const char* isa;
      const char* name;
      const char* planes;
      const char* interleaved;
    } kNames[] = {
        {"avx512", "avx512", "avx512_planes", "avx512_interleaved"},
        {"avx2", "avx2", "avx2_planes", "avx2_interleaved"},
    };
    bool below = false;  // the active set and those under it
    for (const auto& names : kNames) {
      below = below ||
              (active != nullptr && std::strcmp(active->name, names.isa) == 0);
      const Kernels* kernels = below ? FindKernels(names.isa) : nullptr;
      if (kernels == nullptr) continue;
      choices[made++] = {names.name, kernels, true, true};
      choices[made++] = {names.planes, kernels, true, false};
      choices[made++] = {names.interleaved, kernels, false, true};
    }
    choices[made++] = Choice();
    return made;
  }();
  *count = kCount;
  return choices;
}

}  // namespace

const char* KernelName(int index) {
  int count;
  const Choice* choices = Choices(&count);
  return index >= 0 && index < count ? choices[index].name : nullptr;
}

bool Choose(const char* name, Choice* choice) {
  int count;
  const Choice* choices = Choices(&count);
  for (int i = 0; i < count; ++i) {
    if (name == nullptr || std::strcmp(name, choices[i].name) == 0) {
      *choice = choices[i];
      return true;
    }
  }
  return false;
}

int64_t InterleavedImages(const Choice& choice, bool local, int64_t batch) {
  if (!choice.interleaved) return 0;
  if (!choice.planes) return batch;
  if (local) return 0;
  // A group that is not full costs as much as one that is.
  const int64_t lanes = choice.kernels->lanes;
  const int64_t rest = batch % lanes;
  return rest * 4 >= lanes * 3 ? batch : batch - rest;
}

}  // namespace sparse_conv
