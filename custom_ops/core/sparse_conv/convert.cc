#include "custom_ops/core/sparse_conv/convert.h"

#include <algorithm>
#include <cstring>

namespace sparse_conv {
namespace {

// Where positions of the grid lie in the images of one side of a program.
struct Side {
  const Images& images;
  int64_t step_y;
  int64_t step_x;
  const std::vector<Phase>& phases;
  int64_t height;  // of the grid, as far as it counts
  int64_t width;
  int64_t pitch;
  int64_t image_rows;  // of the grid, from image to image
  int64_t num_images;

  bool nhwc() const { return images.format == kSparseConvNhwc; }
  // Distances of neighbours in an image.
  int64_t channel() const { return nhwc() ? 1 : images.height * images.width; }
  int64_t pixel() const { return nhwc() ? images.channels : 1; }

  // Offset of the row of pixels of row y, or -1 outside.
  int64_t RowOffset(const Phase& phase, int64_t y) const {
    int64_t n = 0;
    if (y >= image_rows) {
      n = y / image_rows;
      y %= image_rows;
    }
    const int64_t image_y = y * step_y + phase.first_y;
    const bool inside =
        n < num_images && y < height && image_y >= 0 && image_y < images.height;
    return inside ? n * images.size() + image_y * images.width * pixel() : -1;
  }
  // Offset of a position's pixel, or -1 outside.
  int64_t Offset(const Phase& phase, int64_t y, int64_t x) const {
    const int64_t row = RowOffset(phase, y);
    const int64_t image_x = x * step_x + phase.first_x;
    const bool inside =
        row >= 0 && x < width && image_x >= 0 && image_x < images.width;
    return inside ? row + image_x * pixel() : -1;
  }
};

Side SourceOf(const Frame& frame) {
  return {frame.source,        frame.source_step_y,
          frame.source_step_x, frame.source_phases,
          frame.plane_height,  std::min(frame.plane_width, frame.pitch),
          frame.pitch,         frame.image_rows,
          frame.images};
}

Side ResultOf(const Frame& frame, const Schedule& schedule) {
  return {frame.result, frame.result_step_y, frame.result_step_x,
          frame.result_phases, frame.grid_height, frame.grid_width,
          // Tiles that begin at rows have no positions of the next row.
          schedule.by_rows ? INT64_MAX : frame.pitch, frame.image_rows,
          frame.images};
}

// A position, and those behind it in one or in many rows.
struct Cursor {
  int64_t y;
  int64_t x;

  Cursor(const Frame& frame, int64_t position)
      : y(position / frame.pitch), x(position % frame.pitch) {}
  void Move(const Side& side, int64_t count) {
    x += count;
    if (x >= side.pitch) {
      y += x / side.pitch;
      x %= side.pitch;
    }
  }
};

// The pixels of the lanes of one vector at a cursor, which moves on; `outside`
// where there is none.
template <typename Pointer>
void PixelsOfVector(const Schedule& schedule, const Side& side,
                    const Phase& phase, const ImageGroup& group, Pointer images,
                    Pointer outside, Cursor* cursor, Pointer* pixels) {
  Pointer image = images + group.first * side.images.size();
  if (schedule.layout == kInterleaved) {
    const int64_t offset = side.Offset(phase, cursor->y, cursor->x);
    for (int i = 0; i < schedule.lanes; ++i) {
      const bool inside = offset >= 0 && i < group.count;
      pixels[i] = inside ? image + i * side.images.size() + offset : outside;
    }
    cursor->Move(side, 1);
    return;
  }
  for (int i = 0; i < schedule.lanes;) {
    // One row of the grid.
    const int64_t row = side.RowOffset(phase, cursor->y);
    const int64_t width = row >= 0 ? side.width : 0;
    const int64_t count =
        std::min<int64_t>(schedule.lanes - i, side.pitch - cursor->x);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t x = (cursor->x + k) * side.step_x + phase.first_x;
      pixels[i + k] = cursor->x + k < width && x >= 0 && x < side.images.width
                          ? image + row + x * side.images.channels
                          : outside;
    }
    i += static_cast<int>(count);
    cursor->Move(side, count);
  }
}

// Neighbouring positions that are neighbouring pixels of one row of an image,
// or that all lie outside.
struct Run {
  int64_t first;  // counted from the first position
  int64_t length;
  int64_t offset;  // in the image, of channel 0; -1 outside
};

// Calls f(run) for all of `count` positions from `position` on.
template <typename Function>
void VisitRuns(const Frame& frame, const Side& side, const Phase& phase,
               int64_t position, int64_t count, const Function& f) {
  Cursor cursor(frame, position);
  for (int64_t p = 0; p < count;) {
    const int64_t offset = side.Offset(phase, cursor.y, cursor.x);
    const int64_t left = std::min(count - p, side.pitch - cursor.x);
    int64_t length = 1;
    while (length < left && (side.Offset(phase, cursor.y, cursor.x + length) >=
                             0) == (offset >= 0)) {
      ++length;
    }
    f(Run{p, length, offset});
    p += length;
    cursor.Move(side, length);
  }
}

// Calls f(phase, first, rows, channel) for runs of rows of one phase.
template <typename Function>
void VisitPhases(const Side& side, int64_t begin, int64_t end,
                 const Function& f) {
  const int64_t channels = side.images.channels;
  for (int64_t row = begin; row < end;) {
    const int64_t phase = row / channels;
    const int64_t last = std::min(end, (phase + 1) * channels);
    f(side.phases[phase], row - begin, last - row, row % channels);
    row = last;
  }
}

// Rows [begin, end) of one side at positions [position, position + count) into
// target [end - begin, stride], zeros outside.
void Load(const Kernels& kernels, const Frame& frame, const Side& side,
          const Schedule& schedule, const float* images,
          const ImageGroup& group, int64_t position, int64_t count,
          int64_t begin, int64_t end, float* target, int64_t stride) {
  const int64_t unit = schedule.unit();
  const int64_t lanes = schedule.lanes;
  VisitPhases(
      side, begin, end,
      [&](const Phase& phase, int64_t first, int64_t rows, int64_t channel) {
        float* const to = target + first * stride;
        if (side.nhwc()) {
          const float* pixels[kMaxLanes];
          Cursor cursor(frame, position);
          for (int64_t k = 0; k < count * unit; k += lanes) {
            PixelsOfVector(schedule, side, phase, group, images + channel,
                           schedule.no_pixel.data(), &cursor, pixels);
            const int64_t length = std::min(lanes, count * unit - k);
            kernels.gather(pixels, static_cast<int>(length), rows, to + k,
                           stride);
          }
          return;
        }
        const float* const image = images + group.first * side.images.size() +
                                   channel * side.channel();
        VisitRuns(frame, side, phase, position, count, [&](const Run& run) {
          for (int64_t r = 0; r < rows; ++r) {
            float* const row = to + r * stride + run.first * unit;
            if (run.offset < 0) {
              std::memset(row, 0, run.length * unit * sizeof(float));
              continue;
            }
            const float* const from = image + r * side.channel() + run.offset;
            if (unit == 1 && side.step_x == 1) {
              std::memcpy(row, from, run.length * sizeof(float));
              continue;
            }
            for (int64_t p = 0; p < run.length; ++p) {
              for (int64_t n = 0; n < unit; ++n) {
                row[p * unit + n] =
                    n < group.count
                        ? from[n * side.images.size() + p * side.step_x]
                        : 0.0f;
              }
            }
          }
        });
      });
}

}  // namespace

void FillPlanes(const Kernels& kernels, const Frame& frame,
                const Schedule& schedule, const float* images,
                const ImageGroup& group, int64_t begin, int64_t end,
                float* planes) {
  Load(kernels, frame, SourceOf(frame), schedule, images, group, begin,
       end - begin, 0, frame.num_planes(), planes,
       schedule.plane_size * schedule.unit());
}

void LoadTile(const Kernels& kernels, const Frame& frame,
              const Schedule& schedule, const float* images,
              const ImageGroup& group, int64_t position, int64_t begin,
              int64_t end, float* sums) {
  Load(kernels, frame, ResultOf(frame, schedule), schedule, images, group,
       position, schedule.tile_pixels, begin, end, sums,
       schedule.tile * schedule.lanes);
}

void StoreTile(const Kernels& kernels, const Frame& frame,
               const Schedule& schedule, const float* sums,
               const ImageGroup& group, int64_t position, int64_t begin,
               int64_t end, bool relu, bool past_cache, float* images) {
  const Side side = ResultOf(frame, schedule);
  const int64_t rows_of_grid = frame.images * frame.image_rows;
  const int64_t unit = schedule.unit();
  const int64_t stride = schedule.tile * schedule.lanes;
  VisitPhases(
      side, begin, end,
      [&](const Phase& phase, int64_t first, int64_t rows, int64_t channel) {
        const float* const from = sums + first * stride;
        if (side.nhwc()) {
          float* pixels[kMaxLanes];
          Cursor cursor(frame, position);
          for (int64_t k = 0; k < stride; k += schedule.lanes) {
            if (cursor.y >= rows_of_grid) return;
            PixelsOfVector(schedule, side, phase, group, images + channel,
                           static_cast<float*>(nullptr), &cursor, pixels);
            kernels.scatter(from + k, stride, rows, pixels, relu, past_cache);
          }
          return;
        }
        float* const image = images + group.first * side.images.size() +
                             channel * side.channel();
        VisitRuns(
            frame, side, phase, position, schedule.tile_pixels,
            [&](const Run& run) {
              if (run.offset < 0) return;
              for (int64_t r = 0; r < rows; ++r) {
                const float* const row = from + r * stride + run.first * unit;
                for (int64_t n = 0; n < std::min(unit, group.count); ++n) {
                  float* const to = image + n * side.images.size() +
                                    r * side.channel() + run.offset;
                  for (int64_t p = 0; p < run.length; ++p) {
                    const float value = row[p * unit + n];
                    to[p * side.step_x] = relu && value < 0 ? 0.0f : value;
                  }
                }
              }
            });
      });
}

}  // namespace sparse_conv
