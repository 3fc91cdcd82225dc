// Which kernel a call takes.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_CHOICE_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_CHOICE_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/engine.h"
#include "custom_ops/core/sparse_conv/jit.h"
#include "custom_ops/core/sparse_conv/kernels.h"

namespace sparse_conv {

// A kernel by name.
struct Choice {
  const char* name = "scalar";
  const Kernels* kernels = nullptr;  // null: scalar
  bool planes = false;               // layouts that may be used
  bool interleaved = false;
  const JitTarget* jit = nullptr;  // code for forward and grad_input, in planes
};

// Names that run here, fastest first, then null.
const char* KernelName(int index);

// For tests: one more name, before "scalar".
void AddChoice(const Choice& choice);

// Of that name, the first one for null; false where there is none.
bool Choose(const char* name, Choice* choice);

// How many of the images go interleaved: the first ones; the others by planes.
// Local programs read aligned vectors in both layouts, and code reads few: they
// need no groups.
int64_t InterleavedImages(const Choice& choice, bool local_or_code,
                          int64_t batch);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_CHOICE_H_
