// Modelled times of sparse and of dense convolution.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/choice.h"
#include "custom_ops/core/sparse_conv/geometry.h"

namespace sparse_conv {

// How many non-zeros there are, in how many columns (tap, channel of a group)
// and rows (output channel); at random places in these.
struct Nonzeros {
  int64_t count;
  int64_t columns;
  int64_t rows;
};

// In all columns and rows.
Nonzeros AtRandom(const Geometry& geometry, int64_t count);

// Milliseconds of forward by `choice` on one thread.
double SparseMs(const Geometry& geometry, const Choice& choice,
                const Nonzeros& nonzeros, int64_t batch);

// Of a dense convolution by oneDNN, on one thread.
double DenseMs(const Geometry& geometry, int64_t batch);

// Whether the sparse convolution is to be taken: the model may be wrong by some
// percent, and is not to cost time.
bool IsFaster(double sparse_ms, double dense_ms);

// Density below which that is so, non-zeros at random places.
double BreakEven(const Geometry& geometry, const Choice& choice, int64_t batch);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_COST_MODEL_H_
