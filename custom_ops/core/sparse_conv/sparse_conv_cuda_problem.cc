#include "custom_ops/core/sparse_conv/sparse_conv_cuda_problem.h"

#include <utility>

namespace sparse_conv {
namespace cuda {
namespace {

Images ImagesOf(int64_t height, int64_t width, int64_t channels,
                SparseConvFormat format) {
  const bool nhwc = format == kSparseConvNhwc;
  const int64_t x = nhwc ? channels : 1;
  return {height, width, channels, width * x, x, nhwc ? 1 : height * width};
}

Problem Forward(const Geometry& g, const std::vector<int64_t>& positions) {
  Problem problem = {};
  problem.input = InputOf(g);
  problem.output = OutputOf(g);
  problem.height = g.out_height;
  problem.width = g.out_width;
  problem.step_y = 1;
  problem.step_x = 1;
  problem.stride_height = g.stride_height;
  problem.stride_width = g.stride_width;
  problem.weights.reserve(positions.size());
  for (size_t k = 0; k < positions.size(); ++k) {
    const Place place = PlaceOf(g, positions[k]);
    problem.weights.push_back(
        {static_cast<int32_t>(place.output),
         static_cast<int32_t>(place.channel),
         static_cast<int32_t>(place.i * g.dilation_height - g.pad_top),
         static_cast<int32_t>(place.j * g.dilation_width - g.pad_left),
         static_cast<int32_t>(k)});
  }
  return problem;
}

// Tap i takes row y of the input to row (y + pad - i * dilation) / stride of
// the output, where that is whole.
std::vector<Problem> GradInput(const Geometry& g,
                               const std::vector<int64_t>& positions) {
  std::vector<Problem> problems(g.stride_height * g.stride_width);
  for (int64_t y = 0; y < g.stride_height; ++y) {
    for (int64_t x = 0; x < g.stride_width; ++x) {
      Problem& problem = problems[y * g.stride_width + x];
      problem.input = OutputOf(g);
      problem.output = InputOf(g);
      problem.height = (g.height - y + g.stride_height - 1) / g.stride_height;
      problem.width = (g.width - x + g.stride_width - 1) / g.stride_width;
      problem.first_y = y;
      problem.first_x = x;
      problem.step_y = g.stride_height;
      problem.step_x = g.stride_width;
      problem.stride_height = 1;
      problem.stride_width = 1;
    }
  }
  // The class of pixels that a tap reaches, and the shift from one to the
  // other.
  const auto split = [](int64_t tap, int64_t dilation, int64_t pad,
                        int64_t stride) {
    const int64_t first = tap * dilation - pad;  // row that output 0 reads
    const int64_t rest = (first % stride + stride) % stride;
    return std::make_pair(rest, (rest - first) / stride);
  };
  if (g.output_size() == 0) return problems;
  for (size_t k = 0; k < positions.size(); ++k) {
    const Place place = PlaceOf(g, positions[k]);
    const auto [y, dy] =
        split(place.i, g.dilation_height, g.pad_top, g.stride_height);
    const auto [x, dx] =
        split(place.j, g.dilation_width, g.pad_left, g.stride_width);
    problems[y * g.stride_width + x].weights.push_back(
        {static_cast<int32_t>(place.channel),
         static_cast<int32_t>(place.output), static_cast<int32_t>(dy),
         static_cast<int32_t>(dx), static_cast<int32_t>(k)});
  }
  return problems;
}

}  // namespace

Images InputOf(const Geometry& g) {
  return ImagesOf(g.height, g.width, g.in_channels, g.format);
}

Images OutputOf(const Geometry& g) {
  return ImagesOf(g.out_height, g.out_width, g.out_channels, g.format);
}

std::vector<Problem> ProblemsOf(const Geometry& geometry,
                                SparseConvCudaPurpose purpose,
                                const std::vector<int64_t>& positions) {
  std::vector<Problem> found;
  if (purpose == kSparseConvCudaForward) {
    found.push_back(Forward(geometry, positions));
  } else {
    found = GradInput(geometry, positions);
  }
  std::vector<Problem> problems;
  for (Problem& problem : found) {
    if (problem.height > 0 && problem.width > 0) {
      problems.push_back(std::move(problem));
    }
  }
  return problems;
}

}  // namespace cuda
}  // namespace sparse_conv
