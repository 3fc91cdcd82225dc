#include "custom_ops/core/sparse_conv/convert.h"

#include <algorithm>
#include <cstring>

namespace sparse_conv {
namespace {

constexpr int64_t kBlock = 8;  // of Kernels::transpose

int Count(int64_t left) { return static_cast<int>(std::min(left, kBlock)); }

// Distances of neighbours in an array of images.
struct Strides {
  int64_t channel;
  int64_t x;
  int64_t y;

  explicit Strides(const Images& images) {
    const bool nhwc = images.format == kSparseConvNhwc;
    channel = nhwc ? 1 : images.height * images.width;
    x = nhwc ? images.channels : 1;
    y = images.width * x;
  }
};

// The positions of an axis of planes, [0, size), that lie in the array.
struct Inside {
  int64_t begin;
  int64_t end;

  Inside(int64_t size, int64_t first, int64_t step, int64_t array_size) {
    begin = first >= 0 ? 0 : (-first + step - 1) / step;
    end = array_size <= first ? 0 : (array_size - 1 - first) / step + 1;
    end = std::clamp(end, int64_t{0}, size);
    begin = std::min(begin, end);
  }
};

// One row of the planes of one phase.
struct PlaneRow {
  const Kernels& kernels;
  const Schedule& schedule;
  const Images& source;
  Strides strides;
  int64_t step;        // of the source, from position to position
  const float* image;  // of the group's first; the row's position 0
  int64_t count;       // images
  float* planes;       // of channel 0; the row's position 0
  int64_t plane;       // distance of planes
  Inside inside;

  const float* Source(int64_t n, int64_t c, int64_t x) const {
    // Lanes without an image repeat the last one: nobody reads their sums.
    return image + std::min(n, count - 1) * source.size() +
           c * strides.channel + x * step;
  }

  void Zero(int64_t begin, int64_t end) const {
    const int64_t unit = schedule.unit();
    for (int64_t c = 0; c < source.channels; ++c) {
      std::memset(planes + c * plane + begin * unit, 0,
                  (end - begin) * unit * sizeof(float));
    }
  }

  void Fill() const {
    if (schedule.layout == kInterleaved) {
      if (strides.channel == 1) {
        InterleavedChannels();
      } else {
        InterleavedPixels();
      }
    } else if (strides.channel == 1) {
      PlanesOfChannels();
    } else {
      PlanesOfPixels();
    }
  }

 private:
  // Rows of a transposed block: images; columns: channels.
  void InterleavedChannels() const {
    const float* from[kBlock];
    float* to[kBlock];
    // Two blocks of channels are a cache line of the source.
    for (int64_t c = 0; c < source.channels; c += 2 * kBlock) {
      const int64_t end = std::min(c + 2 * kBlock, source.channels);
      for (int64_t x = inside.begin; x < inside.end; ++x) {
        for (int64_t d = c; d < end; d += kBlock) {
          const int columns = Count(end - d);
          for (int64_t n = 0; n < schedule.lanes; n += kBlock) {
            for (int i = 0; i < kBlock; ++i) from[i] = Source(n + i, d, x);
            for (int i = 0; i < columns; ++i) {
              to[i] = planes + (d + i) * plane + x * schedule.lanes + n;
            }
            kernels.transpose(from, kBlock, columns, to, false);
          }
        }
      }
    }
  }

  // Rows: images; columns: pixels.
  void InterleavedPixels() const {
    const float* from[kBlock];
    float* to[kBlock];
    for (int64_t c = 0; c < source.channels; ++c) {
      float* target = planes + c * plane;
      if (step != 1) {
        for (int64_t x = inside.begin; x < inside.end; ++x) {
          for (int64_t n = 0; n < schedule.lanes; ++n) {
            target[x * schedule.lanes + n] = *Source(n, c, x);
          }
        }
        continue;
      }
      for (int64_t x = inside.begin; x < inside.end; x += kBlock) {
        const int columns = Count(inside.end - x);
        for (int64_t n = 0; n < schedule.lanes; n += kBlock) {
          for (int i = 0; i < kBlock; ++i) from[i] = Source(n + i, c, x);
          for (int i = 0; i < columns; ++i) {
            to[i] = target + (x + i) * schedule.lanes + n;
          }
          kernels.transpose(from, kBlock, columns, to, false);
        }
      }
    }
  }

  // Rows: pixels; columns: channels.
  void PlanesOfChannels() const {
    const float* from[kBlock];
    float* to[kBlock];
    for (int64_t x = inside.begin; x < inside.end; x += kBlock) {
      const int rows = Count(inside.end - x);
      for (int64_t c = 0; c < source.channels; c += kBlock) {
        const int columns = Count(source.channels - c);
        for (int i = 0; i < rows; ++i) from[i] = Source(0, c, x + i);
        for (int i = 0; i < columns; ++i) to[i] = planes + (c + i) * plane + x;
        kernels.transpose(from, rows, columns, to, false);
      }
    }
  }

  void PlanesOfPixels() const {
    const int64_t length = inside.end - inside.begin;
    if (length <= 0) return;
    for (int64_t c = 0; c < source.channels; ++c) {
      const float* from = Source(0, c, inside.begin);
      float* target = planes + c * plane + inside.begin;
      if (step == 1) {
        std::memcpy(target, from, length * sizeof(float));
        continue;
      }
      for (int64_t x = 0; x < length; ++x) target[x] = from[x * step];
    }
  }
};

// Neighbouring pixels of a tile in one row of the grid and in the result.
struct Run {
  int64_t vector_pixel;  // the first one's place in the tile
  int64_t length;
  int64_t y;  // of the grid
  int64_t x;
};

// Calls f(run) for what a tile has inside the grid.
template <typename Function>
void VisitRuns(const Program& program, const Schedule& schedule, int64_t tile,
               const Function& f) {
  const int64_t position = schedule.TilePosition(program, tile);
  int64_t pixel = 0;
  int64_t y = position / program.pitch;
  int64_t x = position % program.pitch;
  while (pixel < schedule.tile_pixels && y < program.grid_height) {
    const int64_t length =
        std::min(program.grid_width - x, schedule.tile_pixels - pixel);
    if (length > 0) f(Run{pixel, length, y, x});
    if (schedule.by_rows) return;
    pixel += program.pitch - x;
    x = 0;
    ++y;
  }
}

// Where rows of one phase meet the result.
struct Target {
  const Images& result;
  Strides strides;
  int64_t step_y;
  int64_t step_x;
  Phase phase;

  Target(const Program& program, int64_t phase)
      : result(program.result),
        strides(program.result),
        step_y(program.result_step_y),
        step_x(program.result_step_x),
        phase(program.result_phases[phase]) {}

  // Pixels of a run that lie in the result: phases may lack the last ones.
  int64_t Length(const Run& run) const {
    if (run.y * step_y + phase.first_y >= result.height) return 0;
    const int64_t first = run.x * step_x + phase.first_x;
    if (first >= result.width) return 0;
    return std::min(run.length, (result.width - 1 - first) / step_x + 1);
  }
  int64_t Offset(const Run& run) const {
    return (run.y * step_y + phase.first_y) * strides.y +
           (run.x * step_x + phase.first_x) * strides.x;
  }
  int64_t Pixel() const { return step_x * strides.x; }
};

// Calls f(target, first, rows, channel) for runs of rows of one phase.
template <typename Function>
void VisitPhases(const Program& program, int64_t begin, int64_t end,
                 const Function& f) {
  const int64_t channels = program.result.channels;
  for (int64_t row = begin; row < end;) {
    const int64_t phase = row / channels;
    const int64_t last = std::min(end, (phase + 1) * channels);
    f(Target(program, phase), row - begin, last - row, row % channels);
    row = last;
  }
}

}  // namespace

void FillPlaneRow(const Kernels& kernels, const Program& program,
                  const Schedule& schedule, const float* images,
                  const ImageGroup& group, int64_t y, float* planes) {
  const Images& source = program.source;
  const Strides strides(source);
  const int64_t unit = schedule.unit();
  const int64_t plane = program.plane_size * unit;
  const bool last = y + 1 == program.plane_height;
  const int64_t end =
      last ? program.plane_size - y * program.pitch : program.pitch;
  for (size_t p = 0; p < program.source_phases.size(); ++p) {
    const Phase& phase = program.source_phases[p];
    const int64_t source_y = y * program.source_step_y + phase.first_y;
    Inside inside(std::min(program.plane_width, program.pitch), phase.first_x,
                  program.source_step_x, source.width);
    if (source_y < 0 || source_y >= source.height)
      inside.begin = inside.end = 0;
    const PlaneRow row = {
        kernels,
        schedule,
        source,
        strides,
        program.source_step_x * strides.x,
        images + group.first * source.size() + source_y * strides.y +
            phase.first_x * strides.x,
        group.count,
        planes + static_cast<int64_t>(p) * source.channels * plane +
            y * program.pitch * unit,
        plane,
        inside};
    row.Zero(0, inside.begin);
    row.Zero(inside.end, end);
    row.Fill();
  }
}

void StoreTile(const Kernels& kernels, const Program& program,
               const Schedule& schedule, const float* sums,
               const ImageGroup& group, int64_t tile, int64_t begin,
               int64_t end, bool relu, float* images) {
  const int64_t lanes = schedule.lanes;
  const int64_t row_stride = schedule.tile * lanes;
  const bool interleaved = schedule.layout == kInterleaved;
  float* const image = images + group.first * program.result.size();
  const int64_t size = program.result.size();
  const float* from[kBlock];
  float* to[kBlock];
  VisitPhases(
      program, begin, end,
      [&](const Target& target, int64_t first, int64_t rows, int64_t channel) {
        const Strides& strides = target.strides;
        const int64_t pixel = target.Pixel();
        VisitRuns(program, schedule, tile, [&](const Run& run) {
          const int64_t length = target.Length(run);
          if (length <= 0) return;
          float* const out =
              image + target.Offset(run) + channel * strides.channel;
          const float* const in = sums + first * row_stride +
                                  run.vector_pixel * (interleaved ? lanes : 1);
          if (interleaved && strides.channel == 1) {
            for (int64_t p = 0; p < length; ++p) {
              for (int64_t n = 0; n < group.count; n += kBlock) {
                const int columns = Count(group.count - n);
                for (int64_t r = 0; r < rows; r += kBlock) {
                  const int count = Count(rows - r);
                  for (int i = 0; i < count; ++i) {
                    from[i] = in + (r + i) * row_stride + p * lanes + n;
                  }
                  for (int i = 0; i < columns; ++i) {
                    to[i] = out + (n + i) * size + p * pixel + r;
                  }
                  kernels.transpose(from, count, columns, to, relu);
                }
              }
            }
          } else if (interleaved && pixel == 1) {
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t n = 0; n < group.count; n += kBlock) {
                const int columns = Count(group.count - n);
                for (int64_t p = 0; p < length; p += kBlock) {
                  const int count = Count(length - p);
                  for (int i = 0; i < count; ++i) {
                    from[i] = in + r * row_stride + (p + i) * lanes + n;
                  }
                  for (int i = 0; i < columns; ++i) {
                    to[i] = out + (n + i) * size + r * strides.channel + p;
                  }
                  kernels.transpose(from, count, columns, to, relu);
                }
              }
            }
          } else if (!interleaved && strides.channel == 1) {
            for (int64_t p = 0; p < length; p += kBlock) {
              const int columns = Count(length - p);
              for (int64_t r = 0; r < rows; r += kBlock) {
                const int count = Count(rows - r);
                for (int i = 0; i < count; ++i) {
                  from[i] = in + (r + i) * row_stride + p;
                }
                for (int i = 0; i < columns; ++i) {
                  to[i] = out + (p + i) * pixel + r;
                }
                kernels.transpose(from, count, columns, to, relu);
              }
            }
          } else {
            const int64_t images_in = interleaved ? group.count : 1;
            const int64_t step = interleaved ? lanes : 1;
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t n = 0; n < images_in; ++n) {
                float* const row = out + n * size + r * strides.channel;
                const float* const sum = in + r * row_stride + n;
                for (int64_t p = 0; p < length; ++p) {
                  const float value = sum[p * step];
                  row[p * pixel] = relu && value < 0 ? 0.0f : value;
                }
              }
            }
          }
        });
      });
}

void LoadTile(const Kernels& kernels, const Program& program,
              const Schedule& schedule, const float* images,
              const ImageGroup& group, int64_t tile, int64_t begin, int64_t end,
              float* sums) {
  const int64_t lanes = schedule.lanes;
  const int64_t row_stride = schedule.tile * lanes;
  const bool interleaved = schedule.layout == kInterleaved;
  const int64_t size = program.result.size();
  const float* const image = images + group.first * size;
  std::memset(sums, 0, (end - begin) * row_stride * sizeof(float));
  const float* from[kBlock];
  float* to[kBlock];
  VisitPhases(
      program, begin, end,
      [&](const Target& target, int64_t first, int64_t rows, int64_t channel) {
        const Strides& strides = target.strides;
        const int64_t pixel = target.Pixel();
        VisitRuns(program, schedule, tile, [&](const Run& run) {
          const int64_t length = target.Length(run);
          if (length <= 0) return;
          const float* const in =
              image + target.Offset(run) + channel * strides.channel;
          float* const out = sums + first * row_stride +
                             run.vector_pixel * (interleaved ? lanes : 1);
          if (strides.channel == 1) {
            // Rows of a transposed block: images, or pixels; columns: channels.
            const int64_t outer = interleaved ? length : 1;
            const int64_t inner = interleaved ? group.count : length;
            for (int64_t p = 0; p < outer; ++p) {
              for (int64_t n = 0; n < inner; n += kBlock) {
                const int count = Count(inner - n);
                for (int64_t r = 0; r < rows; r += kBlock) {
                  const int columns = Count(rows - r);
                  for (int i = 0; i < count; ++i) {
                    from[i] = in + r + p * pixel +
                              (n + i) * (interleaved ? size : pixel);
                  }
                  for (int i = 0; i < columns; ++i) {
                    to[i] = out + (r + i) * row_stride + p * lanes + n;
                  }
                  kernels.transpose(from, count, columns, to, false);
                }
              }
            }
            return;
          }
          const int64_t images_in = interleaved ? group.count : 1;
          const int64_t step = interleaved ? lanes : 1;
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t n = 0; n < images_in; ++n) {
              const float* const row = in + n * size + r * strides.channel;
              float* const sum = out + r * row_stride + n;
              for (int64_t p = 0; p < length; ++p)
                sum[p * step] = row[p * pixel];
            }
          }
        });
      });
}

}  // namespace sparse_conv
