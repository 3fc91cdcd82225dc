// Runs programs on vectors: images to planes, sums of tiles, tiles to images.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_ENGINE_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_ENGINE_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/kernels.h"
#include "custom_ops/core/sparse_conv/parallel.h"
#include "custom_ops/core/sparse_conv/program.h"
#include "custom_ops/core/sparse_conv/schedule.h"

namespace sparse_conv {

// Images [first, first + count) of a batch, in one layout.
struct Batch {
  int64_t first;
  int64_t count;
};

// result = program(source), started from `bias` [channels of the result] if not
// null, below 0 made 0 if `relu`. `weights` are in the order of the schedule.
// False where there is no memory.
bool Execute(const Kernels& kernels, const Program& program,
             const Schedule& schedule, const float* weights, const Batch& batch,
             const float* source, const float* bias, bool relu, float* result,
             const SparseConvPool* pool);

// products [entries, lanes] += for each entry, in the order of the schedule,
// the products of the source's shifted plane with the row of `result`. Needs a
// schedule whose items have one row.
bool ExecuteGrad(const Kernels& kernels, const Program& program,
                 const Schedule& schedule, const Batch& batch,
                 const float* source, const float* result, float* products,
                 const SparseConvPool* pool,
                 const SparseConvAllocator* allocator);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_ENGINE_H_
