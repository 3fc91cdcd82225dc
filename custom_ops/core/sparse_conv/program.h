// A convolution, or the gradient of its input, as sums of shifted planes.
//
//   row[r][u] = sum over the entries (plane, tap) of r of
//       w * planes[plane][u + shift[tap]],   u a flat position in the grid
//
// Planes are the channels of the source, padded by zeros, one set of them for
// each phase of the stride, so that every sum has stride 1. Rows are the
// channels of the result, one set of them for each phase that it is written in:
//
//                 source   phases of planes   result   phases of rows
//   forward       input    strides            output   1
//   grad_input    output   1                  input    strides
//
// Neighbouring rows of a plane share their zeros: the right pad of one is the
// left pad of the next.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_PROGRAM_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/geometry.h"
#include "custom_ops/core/sparse_conv/nonzero.h"

namespace sparse_conv {

// Position v of one phase of an axis is position v * step + first of an array.
struct Phase {
  int64_t first_y;
  int64_t first_x;
};

// An array of images [height, width, channels] or [channels, height, width].
struct Images {
  int64_t height;
  int64_t width;
  int64_t channels;
  SparseConvFormat format;

  int64_t size() const { return height * width * channels; }
};

struct Entry {
  int32_t plane;
  int32_t tap;
  int32_t index;  // among the positions
};

// A program without its sums.
struct Frame {
  Images source;
  int64_t source_step_y;
  int64_t source_step_x;
  std::vector<Phase> source_phases;  // plane = phase * channels + channel
  int64_t plane_height;
  int64_t plane_width;  // that rows of the grid read
  int64_t pitch;        // distance of rows, of planes and of the grid
  // Images may lie one below the other in planes and grid, this many rows apart
  // (neighbours share zeros as rows do).
  int64_t image_rows;
  int64_t images;  // 1 in a program

  Images result;
  int64_t result_step_y;
  int64_t result_step_x;
  std::vector<Phase> result_phases;  // row = phase * channels + channel
  int64_t grid_height;
  int64_t grid_width;

  int64_t num_planes() const {
    return static_cast<int64_t>(source_phases.size()) * source.channels;
  }
  int64_t num_rows() const {
    return static_cast<int64_t>(result_phases.size()) * result.channels;
  }
  // Positions of the grid, from the first to the last.
  int64_t num_positions() const {
    return ((images - 1) * image_rows + grid_height - 1) * pitch + grid_width;
  }
};

struct Program : Frame {
  std::vector<int32_t> shifts;  // by tap
  // The entries of row r, ascending by tap, then by plane: entries[rows[r]] to
  // entries[rows[r + 1]].
  std::vector<int64_t> rows;
  std::vector<Entry> entries;

  int64_t num_entries() const { return static_cast<int64_t>(entries.size()); }
};

// `rows` and `nonzeros` as in SparseConvPattern.
Program ForwardProgram(const Geometry& geometry,
                       const std::vector<int64_t>& rows,
                       const std::vector<Nonzero>& nonzeros);
Program GradInputProgram(const Geometry& geometry,
                         const std::vector<int64_t>& rows,
                         const std::vector<Nonzero>& nonzeros);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_PROGRAM_H_
