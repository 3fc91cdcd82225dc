// Forward and the gradient of the input as convolutions of one form, which the
// CUDA kernels compute.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PROBLEM_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PROBLEM_H_

#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/geometry.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_pattern.h"

namespace sparse_conv {
namespace cuda {

// A weight: output[y, x, filter] += w * input[y * stride_height + dy,
//     x * stride_width + dx, channel].
struct Weight {
  int32_t filter;
  int32_t channel;
  int32_t dy;
  int32_t dx;
  int32_t index;  // among the positions
};

// An array of images: sizes, and distances of neighbours in elements.
struct Images {
  int64_t height;
  int64_t width;
  int64_t channels;
  int64_t y;
  int64_t x;
  int64_t channel;

  int64_t size() const { return height * width * channels; }
};

Images InputOf(const Geometry& geometry);
Images OutputOf(const Geometry& geometry);

// Pixel (y, x) of the problem is (first_y + y * step_y, first_x + x * step_x)
// of the output array.
struct Problem {
  Images input;
  Images output;
  int64_t height;  // in pixels of the problem
  int64_t width;
  int64_t first_y;
  int64_t first_x;
  int64_t step_y;
  int64_t step_x;
  int64_t stride_height;
  int64_t stride_width;
  std::vector<Weight> weights;
};

// Forward is one problem. In the gradient of the input, pixels whose rows and
// columns have the same remainders modulo the strides read the same taps: each
// such class is a problem, of stride 1. Together they have every pixel of the
// output once, and every weight at most once. None has no pixels.
std::vector<Problem> ProblemsOf(const Geometry& geometry,
                                SparseConvCudaPurpose purpose,
                                const std::vector<int64_t>& positions);

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_PROBLEM_H_
