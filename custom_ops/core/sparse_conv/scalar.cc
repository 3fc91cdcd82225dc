#include "custom_ops/core/sparse_conv/scalar.h"

#include <algorithm>
#include <cmath>

#include "custom_ops/core/sparse_conv/parallel.h"

namespace sparse_conv {
namespace {

// Strides of an array of images in either format.
struct Image {
  int64_t height;
  int64_t width;
  int64_t channels;
  int64_t y;  // distance of neighbours, in elements
  int64_t x;
  int64_t channel;

  Image(int64_t height, int64_t width, int64_t channels,
        SparseConvFormat format)
      : height(height), width(width), channels(channels) {
    const bool nhwc = format == kSparseConvNhwc;
    channel = nhwc ? 1 : height * width;
    x = nhwc ? channels : 1;
    y = width * x;
  }
  int64_t size() const { return height * width * channels; }
};

Image InputOf(const Geometry& g) {
  return {g.height, g.width, g.in_channels, g.format};
}
Image OutputOf(const Geometry& g) {
  return {g.out_height, g.out_width, g.out_channels, g.format};
}

// The outputs [begin, end) of one axis that read inside the input with this
// tap.
struct Range {
  int64_t begin;
  int64_t end;
  int64_t first;  // the input of output 0
};

Range RangeOf(int64_t size, int64_t out_size, int64_t stride, int64_t dilation,
              int64_t pad, int64_t tap) {
  const int64_t first = tap * dilation - pad;
  const int64_t begin = first >= 0 ? 0 : (-first + stride - 1) / stride;
  const int64_t end = first >= size ? 0 : (size - 1 - first) / stride + 1;
  return {std::min(begin, out_size), std::min(end, out_size), first};
}

Range RowsOf(const Geometry& g, int64_t i) {
  return RangeOf(g.height, g.out_height, g.stride_height, g.dilation_height,
                 g.pad_top, i);
}
Range ColumnsOf(const Geometry& g, int64_t j) {
  return RangeOf(g.width, g.out_width, g.stride_width, g.dilation_width,
                 g.pad_left, j);
}

}  // namespace

void ForwardScalar(const SparseConvPattern& pattern, const float* weights,
                   int64_t batch, const float* input, const Epilogue& epilogue,
                   float* output, const SparseConvPool* pool) {
  const Geometry& g = pattern.geometry;
  const Image in = InputOf(g);
  const Image out = OutputOf(g);
  const int64_t cost = 1 + 2 * g.out_height * g.out_width *
                               static_cast<int64_t>(pattern.nonzeros.size()) /
                               g.out_channels;
  Parallel(pool, batch * g.out_channels, cost, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t o = item % g.out_channels;
      const float* image = input + item / g.out_channels * in.size();
      float* plane =
          output + item / g.out_channels * out.size() + o * out.channel;
      const float bias = epilogue.bias == nullptr ? 0.0f : epilogue.bias[o];
      for (int64_t y = 0; y < out.height; ++y) {
        for (int64_t x = 0; x < out.width; ++x) {
          plane[y * out.y + x * out.x] = bias;
        }
      }
      for (int64_t k = pattern.rows[o]; k < pattern.rows[o + 1]; ++k) {
        const Nonzero& nonzero = pattern.nonzeros[k];
        const float weight = weights[nonzero.index];
        const Range rows = RowsOf(g, nonzero.i);
        const Range columns = ColumnsOf(g, nonzero.j);
        const float* channel = image + nonzero.channel * in.channel;
        for (int64_t y = rows.begin; y < rows.end; ++y) {
          const float* row =
              channel + (rows.first + y * g.stride_height) * in.y;
          for (int64_t x = columns.begin; x < columns.end; ++x) {
            plane[y * out.y + x * out.x] +=
                weight * row[(columns.first + x * g.stride_width) * in.x];
          }
        }
      }
      if (!epilogue.relu) continue;
      for (int64_t y = 0; y < out.height; ++y) {
        for (int64_t x = 0; x < out.width; ++x) {
          float& sum = plane[y * out.y + x * out.x];
          sum = epilogue(sum);
        }
      }
    }
  });
}

void GradInputScalar(const SparseConvPattern& pattern, const float* weights,
                     int64_t batch, const float* grad_output, float* grad_input,
                     const SparseConvPool* pool) {
  const Geometry& g = pattern.geometry;
  const Image in = InputOf(g);
  const Image out = OutputOf(g);
  const int64_t cost = 1 + 2 * g.out_height * g.out_width *
                               static_cast<int64_t>(pattern.nonzeros.size());
  Parallel(pool, batch, cost, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      float* image = grad_input + n * in.size();
      std::fill(image, image + in.size(), 0.0f);
      for (int64_t o = 0; o < g.out_channels; ++o) {
        const float* plane = grad_output + n * out.size() + o * out.channel;
        for (int64_t k = pattern.rows[o]; k < pattern.rows[o + 1]; ++k) {
          const Nonzero& nonzero = pattern.nonzeros[k];
          const float weight = weights[nonzero.index];
          const Range rows = RowsOf(g, nonzero.i);
          const Range columns = ColumnsOf(g, nonzero.j);
          float* channel = image + nonzero.channel * in.channel;
          for (int64_t y = rows.begin; y < rows.end; ++y) {
            float* row = channel + (rows.first + y * g.stride_height) * in.y;
            for (int64_t x = columns.begin; x < columns.end; ++x) {
              row[(columns.first + x * g.stride_width) * in.x] +=
                  weight * plane[y * out.y + x * out.x];
            }
          }
        }
      }
    }
  });
}

namespace {

// Of the non-zeros whose value `take(value)` wants.
template <typename Take>
void GradOf(const SparseConvPattern& pattern, int64_t batch, const float* input,
            const float* grad_output, float* grad_values,
            const SparseConvPool* pool, const Take& take) {
  const Geometry& g = pattern.geometry;
  const Image in = InputOf(g);
  const Image out = OutputOf(g);
  const int64_t cost = 1 + 2 * g.out_height * g.out_width * batch *
                               static_cast<int64_t>(pattern.nonzeros.size()) /
                               g.out_channels;
  Parallel(pool, g.out_channels, cost, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t k = pattern.rows[o]; k < pattern.rows[o + 1]; ++k) {
        const Nonzero& nonzero = pattern.nonzeros[k];
        if (!take(grad_values[nonzero.index])) continue;
        const Range rows = RowsOf(g, nonzero.i);
        const Range columns = ColumnsOf(g, nonzero.j);
        double sum = 0;
        for (int64_t n = 0; n < batch; ++n) {
          const float* channel =
              input + n * in.size() + nonzero.channel * in.channel;
          const float* plane = grad_output + n * out.size() + o * out.channel;
          for (int64_t y = rows.begin; y < rows.end; ++y) {
            const float* row =
                channel + (rows.first + y * g.stride_height) * in.y;
            for (int64_t x = columns.begin; x < columns.end; ++x) {
              sum += static_cast<double>(plane[y * out.y + x * out.x]) *
                     row[(columns.first + x * g.stride_width) * in.x];
            }
          }
        }
        grad_values[nonzero.index] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace

void GradValuesScalar(const SparseConvPattern& pattern, int64_t batch,
                      const float* input, const float* grad_output,
                      float* grad_values, const SparseConvPool* pool) {
  GradOf(pattern, batch, input, grad_output, grad_values, pool,
         [](float) { return true; });
}

void GradNonFinite(const SparseConvPattern& pattern, int64_t batch,
                   const float* input, const float* grad_output,
                   float* grad_values, const SparseConvPool* pool) {
  for (size_t k = 0; k < pattern.nonzeros.size(); ++k) {
    if (std::isfinite(grad_values[k])) continue;
    GradOf(pattern, batch, input, grad_output, grad_values, pool,
           [](float value) { return !std::isfinite(value); });
    return;
  }
}

void GradBias(const Geometry& g, int64_t batch, const float* grad_output,
              float* grad_bias, const SparseConvPool* pool) {
  const Image out = OutputOf(g);
  const int64_t pixels = out.height * out.width;
  constexpr int64_t kChannels = 64;  // a task's: whole cache lines in NHWC
  const int64_t tasks = (out.channels + kChannels - 1) / kChannels;
  Parallel(pool, tasks, batch * pixels * kChannels,
           [&](int64_t begin, int64_t end) {
             for (int64_t task = begin; task < end; ++task) {
               const int64_t first = task * kChannels;
               const int64_t count = std::min(kChannels, out.channels - first);
               double sums[kChannels] = {};
               for (int64_t n = 0; n < batch; ++n) {
                 const float* image =
                     grad_output + n * out.size() + first * out.channel;
                 if (g.format == kSparseConvNhwc) {
                   for (int64_t p = 0; p < pixels; ++p) {
                     for (int64_t c = 0; c < count; ++c) {
                       sums[c] += image[p * out.channels + c];
                     }
                   }
                 } else {
                   for (int64_t c = 0; c < count; ++c) {
                     for (int64_t p = 0; p < pixels; ++p) {
                       sums[c] += image[c * pixels + p];
                     }
                   }
                 }
               }
               for (int64_t c = 0; c < count; ++c) {
                 grad_bias[first + c] = static_cast<float>(sums[c]);
               }
             }
           });
}

}  // namespace sparse_conv
