#include "custom_ops/core/sparse_conv/convert.h"

#include <algorithm>
#include <cstring>

namespace sparse_conv {
namespace {

constexpr int64_t kBlock = 8;     // of Kernels::transpose
constexpr int64_t kStaged = 512;  // rows that are streamed together

int Count(int64_t left) { return static_cast<int>(std::min(left, kBlock)); }

// Moves element b of from(a) to element a of to(b), for a < rows, b < columns.
template <typename From, typename To>
void MoveTransposed(const Kernels& kernels, int64_t rows, int64_t columns,
                    const From& from, const To& to, bool relu) {
  const float* sources[kBlock];
  float* targets[kBlock];
  for (int64_t a = 0; a < rows; a += kBlock) {
    const int count = Count(rows - a);
    for (int64_t b = 0; b < columns; b += kBlock) {
      const int width = Count(columns - b);
      for (int i = 0; i < count; ++i) sources[i] = from(a + i) + b;
      for (int i = 0; i < width; ++i) targets[i] = to(b + i) + a;
      kernels.transpose(sources, count, width, targets, relu);
    }
  }
}

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
  void InterleavedChannels() const {
    // 16 channels are a cache line of the source.
    constexpr int64_t kLine = 2 * kBlock;
    for (int64_t c = 0; c < source.channels; c += kLine) {
      for (int64_t x = inside.begin; x < inside.end; ++x) {
        float* const target = planes + c * plane + x * schedule.lanes;
        MoveTransposed(
            kernels, schedule.lanes, std::min(kLine, source.channels - c),
            [&](int64_t n) { return Source(n, c, x); },
            [&](int64_t i) { return target + i * plane; }, false);
      }
    }
  }

  void InterleavedPixels() const {
    for (int64_t c = 0; c < source.channels; ++c) {
      float* const target = planes + c * plane + inside.begin * schedule.lanes;
      const int64_t length = inside.end - inside.begin;
      if (step == 1) {
        MoveTransposed(
            kernels, schedule.lanes, length,
            [&](int64_t n) { return Source(n, c, inside.begin); },
            [&](int64_t x) { return target + x * schedule.lanes; }, false);
        continue;
      }
      for (int64_t x = 0; x < length; ++x) {
        for (int64_t n = 0; n < schedule.lanes; ++n) {
          target[x * schedule.lanes + n] = *Source(n, c, inside.begin + x);
        }
      }
    }
  }

  void PlanesOfChannels() const {
    MoveTransposed(
        kernels, inside.end - inside.begin, source.channels,
        [&](int64_t x) { return Source(0, 0, inside.begin + x); },
        [&](int64_t c) { return planes + c * plane + inside.begin; }, false);
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

// Where positions of the grid lie in the images of one side of a program, by
// phase.
struct Side {
  const Images& images;
  int64_t step_y;
  int64_t step_x;
  const std::vector<Phase>& phases;
};

Side SourceOf(const Program& program) {
  return {program.source, program.source_step_y, program.source_step_x,
          program.source_phases};
}
Side ResultOf(const Program& program) {
  return {program.result, program.result_step_y, program.result_step_x,
          program.result_phases};
}

struct Target {
  const Side& side;
  Strides strides;
  Phase phase;

  Target(const Side& side, int64_t phase)
      : side(side), strides(side.images), phase(side.phases[phase]) {}

  // Pixels of a run that lie in the images: phases may lack the last ones.
  int64_t Length(const Run& run) const {
    if (run.y * side.step_y + phase.first_y >= side.images.height) return 0;
    const int64_t first = run.x * side.step_x + phase.first_x;
    if (first >= side.images.width) return 0;
    return std::min(run.length,
                    (side.images.width - 1 - first) / side.step_x + 1);
  }
  int64_t Offset(const Run& run) const {
    return (run.y * side.step_y + phase.first_y) * strides.y +
           (run.x * side.step_x + phase.first_x) * strides.x;
  }
  int64_t Pixel() const { return side.step_x * strides.x; }
};

// Calls f(target, first, rows, channel) for runs of rows of one phase.
template <typename Function>
void VisitPhases(const Side& side, int64_t begin, int64_t end,
                 const Function& f) {
  const int64_t channels = side.images.channels;
  for (int64_t row = begin; row < end;) {
    const int64_t phase = row / channels;
    const int64_t last = std::min(end, (phase + 1) * channels);
    f(Target(side, phase), row - begin, last - row, row % channels);
    row = last;
  }
}

// Pixels of one tile beside the images that they belong to, of one phase.
struct Piece {
  int64_t rows;    // channels
  int64_t length;  // pixels
  int64_t images;  // 1 unless interleaved
  float* sums;     // of the first row, pixel and image
  int64_t offset;  // of the same in the images
};

// Calls f(piece, strides, pixel) for all of rows [begin, end) of a tile that
// lies inside the images; pixel is the distance of pixels in an image.
template <typename Function>
void VisitPieces(const Program& program, const Schedule& schedule,
                 const Side& side, const ImageGroup& group, int64_t tile,
                 int64_t begin, int64_t end, float* sums, const Function& f) {
  const bool interleaved = schedule.layout == kInterleaved;
  const int64_t row_stride = schedule.tile * schedule.lanes;
  VisitPhases(
      side, begin, end,
      [&](const Target& target, int64_t first, int64_t rows, int64_t channel) {
        VisitRuns(program, schedule, tile, [&](const Run& run) {
          const int64_t length = target.Length(run);
          if (length <= 0) return;
          const int64_t vector = run.vector_pixel * schedule.unit();
          const Piece piece = {rows, length, interleaved ? group.count : 1,
                               sums + first * row_stride + vector,
                               group.first * side.images.size() +
                                   target.Offset(run) +
                                   channel * target.strides.channel};
          f(piece, target.strides, target.Pixel());
        });
      });
}

// A tile of one side's images as [end - begin, tile, lanes], zeros where the
// tile or its lanes lie outside.
void LoadSide(const Kernels& kernels, const Program& program, const Side& side,
              const Schedule& schedule, const float* images,
              const ImageGroup& group, int64_t tile, int64_t begin, int64_t end,
              float* sums) {
  const int64_t unit = schedule.unit();
  const int64_t row_stride = schedule.tile * schedule.lanes;
  const int64_t size = side.images.size();
  int64_t inside = 0;
  VisitPieces(program, schedule, side, group, tile, begin, end, sums,
              [&](const Piece& piece, const Strides&, int64_t) {
                inside += piece.rows * piece.length * piece.images;
              });
  if (inside < (end - begin) * row_stride) {
    std::memset(sums, 0, (end - begin) * row_stride * sizeof(float));
  }
  VisitPieces(
      program, schedule, side, group, tile, begin, end, sums,
      [&](const Piece& piece, const Strides& strides, int64_t pixel) {
        const float* const in = images + piece.offset;
        if (strides.channel == 1 && unit == 1) {
          MoveTransposed(
              kernels, piece.length, piece.rows,
              [&](int64_t p) { return in + p * pixel; },
              [&](int64_t r) { return piece.sums + r * row_stride; }, false);
        } else if (strides.channel == 1) {
          for (int64_t p = 0; p < piece.length; ++p) {
            MoveTransposed(
                kernels, piece.images, piece.rows,
                [&](int64_t n) { return in + n * size + p * pixel; },
                [&](int64_t r) {
                  return piece.sums + r * row_stride + p * unit;
                },
                false);
          }
        } else {
          for (int64_t r = 0; r < piece.rows; ++r) {
            for (int64_t n = 0; n < piece.images; ++n) {
              const float* const row = in + n * size + r * strides.channel;
              float* const sum = piece.sums + r * row_stride + n;
              for (int64_t p = 0; p < piece.length; ++p) {
                sum[p * unit] = row[p * pixel];
              }
            }
          }
        }
      });
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
               const Schedule& schedule, float* sums, const ImageGroup& group,
               int64_t tile, int64_t begin, int64_t end, bool relu,
               bool past_cache, float* images) {
  const int64_t unit = schedule.unit();
  const int64_t row_stride = schedule.tile * schedule.lanes;
  const int64_t size = program.result.size();
  const auto store = [&](const Piece& piece, const Strides& strides,
                         int64_t pixel) {
    float* const out = images + piece.offset;
    if (strides.channel == 1 && unit == 1) {
      const bool staged = past_cache && piece.rows <= kStaged;
      if (!staged) {
        MoveTransposed(
            kernels, piece.rows, piece.length,
            [&](int64_t r) { return piece.sums + r * row_stride; },
            [&](int64_t p) { return out + p * pixel; }, relu);
        return;
      }
      // Whole lines, pixel by pixel.
      alignas(64) float stage[kBlock * kStaged];
      for (int64_t p = 0; p < piece.length; p += kBlock) {
        const int count = Count(piece.length - p);
        MoveTransposed(
            kernels, piece.rows, count,
            [&](int64_t r) { return piece.sums + r * row_stride + p; },
            [&](int64_t i) { return stage + i * kStaged; }, relu);
        for (int i = 0; i < count; ++i) {
          kernels.stream(stage + i * kStaged, piece.rows,
                         out + (p + i) * pixel);
        }
      }
    } else if (strides.channel == 1) {
      for (int64_t p = 0; p < piece.length; ++p) {
        MoveTransposed(
            kernels, piece.rows, piece.images,
            [&](int64_t r) { return piece.sums + r * row_stride + p * unit; },
            [&](int64_t n) { return out + n * size + p * pixel; }, relu);
      }
    } else if (unit != 1 && pixel == 1) {
      for (int64_t r = 0; r < piece.rows; ++r) {
        MoveTransposed(
            kernels, piece.length, piece.images,
            [&](int64_t p) { return piece.sums + r * row_stride + p * unit; },
            [&](int64_t n) { return out + n * size + r * strides.channel; },
            relu);
      }
    } else {
      for (int64_t r = 0; r < piece.rows; ++r) {
        for (int64_t n = 0; n < piece.images; ++n) {
          float* const row = out + n * size + r * strides.channel;
          const float* const sum = piece.sums + r * row_stride + n;
          for (int64_t p = 0; p < piece.length; ++p) {
            const float value = sum[p * unit];
            row[p * pixel] = relu && value < 0 ? 0.0f : value;
          }
        }
      }
    }
  };
  VisitPieces(program, schedule, ResultOf(program), group, tile, begin, end,
              sums, store);
}

void LoadTile(const Kernels& kernels, const Program& program,
              const Schedule& schedule, const float* images,
              const ImageGroup& group, int64_t tile, int64_t begin, int64_t end,
              float* sums) {
  LoadSide(kernels, program, ResultOf(program), schedule, images, group, tile,
           begin, end, sums);
}

void LoadLocalPlanes(const Kernels& kernels, const Program& program,
                     const Schedule& schedule, const float* images,
                     const ImageGroup& group, int64_t tile, float* planes) {
  LoadSide(kernels, program, SourceOf(program), schedule, images, group, tile,
           0, program.num_planes(), planes);
}

}  // namespace sparse_conv
