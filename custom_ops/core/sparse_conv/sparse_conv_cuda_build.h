// From a problem to the tables of one launch.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BUILD_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BUILD_H_

#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_layout_inl.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_problem.h"

namespace sparse_conv {
namespace cuda {

struct Variant {
  KernelKind kind;
  int tile_filters;  // of a tile; 1 for kDirect
  bool is_gathered;  // every column is a unit of its own
};

// Tables of one or more problems.
struct Tables {
  std::vector<Set> sets;
  std::vector<Chunk> chunks;
  std::vector<Unit> units;
  std::vector<char> stream;
  // Of the non-zeros, see SetValuesKernel; -1: no pixel reads it.
  std::vector<int32_t> slots;
};

// What a launch costs, by the model in the .cc file.
struct Cost {
  double cycles = 0;    // of the busiest multiprocessor
  double products = 0;  // weights multiplied, zeros included
  int64_t blocks = 0;
};

// Pixels of a block, in steps of kPixelStep, for `batch` images.
int ChoosePixelSteps(const Problem& problem, int64_t batch);

// Adds the tables of a problem; sets, chunks, units and stream of the part are
// indices into them. False where a patch has no room in shared memory (that of
// gathered columns always has) or a table is too long.
bool Build(const Problem& problem, const Variant& variant, int pixel_steps,
           int64_t batch, Part* part, Tables* tables, Cost* cost);

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_BUILD_H_
