#include "custom_ops/core/sparse_conv/geometry.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace sparse_conv {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;

// a * b, or kLimit where that or more.
int64_t Product(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > kLimit) {
    return kLimit;
  }
  return product;
}

// Output size of one axis.
int64_t OutputSize(int64_t size, int64_t pads, int64_t filter, int64_t dilation,
                   int64_t stride) {
  const int64_t free = size + pads - dilation * (filter - 1) - 1;
  return size == 0 || free < 0 ? 0 : free / stride + 1;
}

}  // namespace

Place PlaceOf(const Geometry& geometry, int64_t position) {
  const int64_t output = position % geometry.out_channels;
  position /= geometry.out_channels;
  const int64_t channel = position % geometry.group_channels();
  position /= geometry.group_channels();
  const int64_t group = output / geometry.group_outputs();
  return {position / geometry.filter_width, position % geometry.filter_width,
          group * geometry.group_channels() + channel, output};
}

SparseConvCode Fail(SparseConvError* error, SparseConvCode code,
                    const char* format, ...) {
  if (error != nullptr) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->message, sizeof(error->message), format, arguments);
    va_end(arguments);
  }
  return code;
}

SparseConvCode Check(const SparseConvGeometry* geometry, Geometry* checked,
                     SparseConvError* error) {
  if (geometry == nullptr) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument geometry. Expected a geometry. "
                "Received: null");
  }
  const SparseConvGeometry& g = *geometry;
  const struct {
    const char* name;
    int64_t value;
    int64_t least;
  } fields[] = {
      {"height", g.height, 0},
      {"width", g.width, 0},
      {"in_channels", g.in_channels, 1},
      {"filter_height", g.filter_height, 1},
      {"filter_width", g.filter_width, 1},
      {"out_channels", g.out_channels, 1},
      {"stride_height", g.stride_height, 1},
      {"stride_width", g.stride_width, 1},
      {"dilation_height", g.dilation_height, 1},
      {"dilation_width", g.dilation_width, 1},
      {"pad_top", g.pad_top, 0},
      {"pad_bottom", g.pad_bottom, 0},
      {"pad_left", g.pad_left, 0},
      {"pad_right", g.pad_right, 0},
      {"groups", g.groups, 1},
  };
  for (const auto& field : fields) {
    if (field.value < field.least || field.value >= kLimit) {
      return Fail(error, kSparseConvInvalidArgument,
                  "Invalid value for argument %s. Expected an integer in "
                  "[%lld, 2^31). Received: %s=%lld",
                  field.name, static_cast<long long>(field.least), field.name,
                  static_cast<long long>(field.value));
    }
  }
  if (g.in_channels % g.groups != 0 || g.out_channels % g.groups != 0) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument groups. Expected a divisor of "
                "in_channels=%lld and out_channels=%lld. Received: groups=%lld",
                static_cast<long long>(g.in_channels),
                static_cast<long long>(g.out_channels),
                static_cast<long long>(g.groups));
  }
  // As a number: C callers may pass any.
  int format;
  static_assert(sizeof(format) == sizeof(g.format), "");
  std::memcpy(&format, &g.format, sizeof(format));
  if (format != kSparseConvNhwc && format != kSparseConvNchw) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument format. Expected kSparseConvNhwc "
                "or kSparseConvNchw. Received: format=%d",
                format);
  }
  static_cast<SparseConvGeometry&>(*checked) = g;
  checked->out_height =
      OutputSize(g.height, g.pad_top + g.pad_bottom, g.filter_height,
                 g.dilation_height, g.stride_height);
  checked->out_width =
      OutputSize(g.width, g.pad_left + g.pad_right, g.filter_width,
                 g.dilation_width, g.stride_width);
  // Offsets into planes with their pads are 32 bits wide.
  const int64_t padded_height =
      g.height + g.pad_top + g.pad_bottom + g.stride_height;
  const int64_t padded_width =
      g.width + g.pad_left + g.pad_right + g.stride_width;
  const struct {
    const char* name;
    int64_t elements;
  } arrays[] = {
      {"the kernel",
       Product(Product(g.filter_height, g.filter_width),
               Product(g.in_channels / g.groups, g.out_channels))},
      {"the padded input",
       Product(Product(padded_height, padded_width), g.in_channels)},
      {"the output", Product(Product(checked->out_height, checked->out_width),
                             g.out_channels)},
  };
  for (const auto& array : arrays) {
    if (array.elements >= kLimit) {
      return Fail(error, kSparseConvInvalidArgument,
                  "Invalid value for argument geometry. Expected less than "
                  "2^31 elements in %s. Received: 2^31 or more",
                  array.name);
    }
  }
  return kSparseConvOk;
}

template <typename Index>
SparseConvCode CheckPositions(const Geometry& geometry, const Index* positions,
                              int64_t num_nonzeros, SparseConvError* error) {
  const int64_t size = geometry.kernel_size();
  if (num_nonzeros < 0 || num_nonzeros > size ||
      (num_nonzeros > 0 && positions == nullptr)) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument num_nonzeros. Expected 0 to %lld, "
                "the elements of the kernel. Received: num_nonzeros=%lld",
                static_cast<long long>(size),
                static_cast<long long>(num_nonzeros));
  }
  int64_t before = -1;
  for (int64_t k = 0; k < num_nonzeros; ++k) {
    const int64_t position = positions[k];
    if (position <= before || position >= size) {
      return Fail(error, kSparseConvInvalidArgument,
                  "Invalid value for argument positions. Expected ascending "
                  "integers in [0, %lld). Received: positions[%lld]=%lld after "
                  "%lld",
                  static_cast<long long>(size), static_cast<long long>(k),
                  static_cast<long long>(position),
                  static_cast<long long>(before));
    }
    before = position;
  }
  return kSparseConvOk;
}

template SparseConvCode CheckPositions(const Geometry&, const int32_t*, int64_t,
                                       SparseConvError*);
template SparseConvCode CheckPositions(const Geometry&, const int64_t*, int64_t,
                                       SparseConvError*);

}  // namespace sparse_conv

extern "C" SparseConvCode sparse_conv_output_size(
    const SparseConvGeometry* geometry, int64_t* height, int64_t* width,
    SparseConvError* error) {
  sparse_conv::Geometry checked;
  const SparseConvCode code = sparse_conv::Check(geometry, &checked, error);
  if (code != kSparseConvOk) return code;
  *height = checked.out_height;
  *width = checked.out_width;
  return kSparseConvOk;
}
