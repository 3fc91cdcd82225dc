// Modelled times of sparse and of dense convolution.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/choice.h"
#include "custom_ops/core/sparse_conv/geometry.h"

namespace sparse_conv {

struct Cost {
  double fixed_ms;    // conversions of images
  double product_ms;  // per non-zero, times their number
};

// Of forward by `choice` with num_nonzeros at random places, on one thread.
Cost SparseCost(const Geometry& geometry, const Choice& choice,
                int64_t num_nonzeros, int64_t batch);

// Of a dense convolution by oneDNN, on one thread.
double DenseMs(const Geometry& geometry, int64_t batch);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_
