// The sizes of a convolution, checked once.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_GEOMETRY_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_GEOMETRY_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/sparse_conv.h"

namespace sparse_conv {

// A geometry with what follows from it.
struct Geometry : SparseConvGeometry {
  int64_t out_height = 0;
  int64_t out_width = 0;

  int64_t group_channels() const { return in_channels / groups; }
  int64_t group_outputs() const { return out_channels / groups; }
  int64_t kernel_size() const {
    return filter_height * filter_width * group_channels() * out_channels;
  }
  int64_t input_size() const { return height * width * in_channels; }
  int64_t output_size() const { return out_height * out_width * out_channels; }
};

// A place in the kernel: tap (i, j), input channel over all groups, output
// channel.
struct Place {
  int64_t i;
  int64_t j;
  int64_t channel;
  int64_t output;
};

// The place of a flat position [i, j, channel of the group, output].
Place PlaceOf(const Geometry& geometry, int64_t position);

// Writes `format` to the error, if there is one, and returns the code.
SparseConvCode Fail(SparseConvError* error, SparseConvCode code,
                    const char* format, ...)
    __attribute__((format(printf, 3, 4)));

// Fills `checked`, or says what is wrong.
SparseConvCode Check(const SparseConvGeometry* geometry, Geometry* checked,
                     SparseConvError* error);

// Says what is wrong with the flat positions of non-zeros, of int32 or int64.
template <typename Index>
SparseConvCode CheckPositions(const Geometry& geometry, const Index* positions,
                              int64_t num_nonzeros, SparseConvError* error);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_GEOMETRY_H_
