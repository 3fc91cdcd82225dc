// Random convolutions and their results in double, part of sparse_conv_test.

#include <algorithm>
#include <atomic>
#include <cmath>

#include "custom_ops/core/sparse_conv/sparse_conv_test.h"

namespace sparse_conv {
namespace {

// Element (y, x, c) of an image [height, width, channels].
int64_t At(SparseConvFormat format, int64_t height, int64_t width,
           int64_t channels, int64_t y, int64_t x, int64_t c) {
  return format == kSparseConvNhwc ? (y * width + x) * channels + c
                                   : (c * height + y) * width + x;
}

// The ways in which kernels are sparse.
bool IsNonzero(int64_t kind, double density, int64_t column, int64_t output,
               const std::vector<bool>& columns, const std::vector<bool>& rows,
               Random* random) {
  switch (kind) {
    case 0:  // all-zero but for a few
      return random->Below(50) == 0;
    case 1:  // dense columns and rows
      return columns[column] && rows[output];
    case 2:  // blocks of 4 output channels
      return (column * 7919 + output / 4 * 104729) % 100 < density * 100;
    case 3:  // blocks with holes
      return (column * 7919 + output / 2 * 104729) % 100 < density * 100 &&
             random->Below(40) != 0;
    default:
      return random->Below(1000) < density * 1000;
  }
}

}  // namespace

void TestPool::Run(void* pool, int64_t items, int64_t /*cost*/,
                   void (*body)(void*, int64_t, int64_t), void* context) {
  const TestPool& self = *static_cast<TestPool*>(pool);
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next.fetch_add(self.grain); i < items;
         i = next.fetch_add(self.grain)) {
      body(context, i, std::min(items, i + self.grain));
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < self.threads; ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
}

std::string Case::Name() const {
  char text[256];
  const SparseConvGeometry& g = geometry;
  std::snprintf(
      text, sizeof(text),
      "batch %lld, %lldx%lldx%lld, filter %lldx%lldx%lld, stride %lld %lld, "
      "dilation %lld %lld, pads %lld %lld %lld %lld, groups %lld, %s, nnz %zu",
      (long long)batch, (long long)g.height, (long long)g.width,
      (long long)g.in_channels, (long long)g.filter_height,
      (long long)g.filter_width, (long long)g.out_channels,
      (long long)g.stride_height, (long long)g.stride_width,
      (long long)g.dilation_height, (long long)g.dilation_width,
      (long long)g.pad_top, (long long)g.pad_bottom, (long long)g.pad_left,
      (long long)g.pad_right, (long long)g.groups,
      g.format == kSparseConvNhwc ? "NHWC" : "NCHW", positions.size());
  return text;
}

Case RandomCase(Random* random) {
  Case c;
  SparseConvGeometry& g = c.geometry;
  const bool large = random->Below(8) == 0;
  g.groups = random->Below(3) == 0 ? random->Between(2, 3) : 1;
  g.height = random->Between(1, large ? 40 : 15);
  g.width = random->Between(1, large ? 40 : 19);
  g.in_channels = g.groups * random->Between(1, large ? 30 : 12);
  g.out_channels = g.groups * random->Between(1, large ? 70 : 21);
  g.filter_height = random->Between(1, 4);
  g.filter_width = random->Between(1, random->Below(4) == 0 ? 7 : 3);
  if (random->Below(4) == 0) g.filter_height = g.filter_width = 1;
  g.stride_height = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.stride_width = random->Below(2) == 0 ? 1 : random->Between(1, 4);
  g.dilation_height = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.dilation_width = random->Below(2) == 0 ? 1 : random->Between(1, 3);
  g.pad_top = random->Below(3);
  g.pad_bottom = random->Below(3);
  g.pad_left = random->Below(3);
  g.pad_right = random->Below(3);
  if (random->Below(8) == 0) g.pad_left = random->Below(9);
  g.format = random->Below(2) == 0 ? kSparseConvNhwc : kSparseConvNchw;
  const int64_t batches[] = {0, 1, 1, 2, 3, 7, 8, 9, 16, 17};
  c.batch = batches[random->Below(10)];
  SparseConvError error;
  CHECK(sparse_conv_output_size(&g, &c.out_height, &c.out_width, &error) ==
        kSparseConvOk);

  const int64_t columns =
      g.filter_height * g.filter_width * g.in_channels / g.groups;
  const int64_t kind = random->Below(7);
  const double density = random->Below(100) / 100.0;
  std::vector<bool> live_columns(columns);
  std::vector<bool> live_rows(g.out_channels);
  for (int64_t i = 0; i < columns; ++i) live_columns[i] = random->Below(2);
  for (int64_t i = 0; i < g.out_channels; ++i) {
    live_rows[i] = random->Below(3) != 0;
  }
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      if (IsNonzero(kind, density, column, o, live_columns, live_rows,
                    random)) {
        c.positions.push_back(column * g.out_channels + o);
        c.weights.push_back(random->Normal());
      }
    }
  }
  c.input.resize(c.batch * g.height * g.width * g.in_channels);
  c.grad_output.resize(c.output_size());
  c.bias.resize(g.out_channels);
  for (std::vector<float>* values : {&c.input, &c.grad_output, &c.bias}) {
    for (float& value : *values) value = random->Normal();
  }
  return c;
}

Reference ReferenceOf(const Case& c) {
  const SparseConvGeometry& g = c.geometry;
  const int64_t group_channels = g.in_channels / g.groups;
  const int64_t in_size = g.height * g.width * g.in_channels;
  const int64_t out_size = c.out_height * c.out_width * g.out_channels;
  Reference r;
  r.output.assign(c.output_size(), 0);
  r.output_magnitude.assign(c.output_size(), 0);
  r.grad_input.assign(c.input.size(), 0);
  r.grad_input_magnitude.assign(c.input.size(), 0);
  r.grad_values.assign(c.positions.size(), 0);
  r.grad_values_magnitude.assign(c.positions.size(), 0);
  r.grad_bias.assign(g.out_channels, 0);
  for (int64_t n = 0; n < c.batch; ++n) {
    for (int64_t y = 0; y < c.out_height; ++y) {
      for (int64_t x = 0; x < c.out_width; ++x) {
        for (int64_t o = 0; o < g.out_channels; ++o) {
          const int64_t out =
              n * out_size +
              At(g.format, c.out_height, c.out_width, g.out_channels, y, x, o);
          r.output[out] = c.bias[o];
          r.output_magnitude[out] = std::fabs(c.bias[o]);
          r.grad_bias[o] += c.grad_output[out];
        }
        for (size_t k = 0; k < c.positions.size(); ++k) {
          int64_t position = c.positions[k];
          const int64_t o = position % g.out_channels;
          position /= g.out_channels;
          const int64_t channel =
              position % group_channels +
              o / (g.out_channels / g.groups) * group_channels;
          position /= group_channels;
          const int64_t in_y = y * g.stride_height +
                               position / g.filter_width * g.dilation_height -
                               g.pad_top;
          const int64_t in_x = x * g.stride_width +
                               position % g.filter_width * g.dilation_width -
                               g.pad_left;
          if (in_y < 0 || in_y >= g.height || in_x < 0 || in_x >= g.width) {
            continue;
          }
          const int64_t in =
              n * in_size + At(g.format, g.height, g.width, g.in_channels, in_y,
                               in_x, channel);
          const int64_t out =
              n * out_size +
              At(g.format, c.out_height, c.out_width, g.out_channels, y, x, o);
          const double forward =
              static_cast<double>(c.weights[k]) * c.input[in];
          const double backward =
              static_cast<double>(c.weights[k]) * c.grad_output[out];
          const double product =
              static_cast<double>(c.input[in]) * c.grad_output[out];
          r.output[out] += forward;
          r.output_magnitude[out] += std::fabs(forward);
          r.grad_input[in] += backward;
          r.grad_input_magnitude[in] += std::fabs(backward);
          r.grad_values[k] += product;
          r.grad_values_magnitude[k] += std::fabs(product);
        }
      }
    }
  }
  return r;
}

}  // namespace sparse_conv
