#include "custom_ops/core/sparse_conv/program.h"

#include <algorithm>

namespace sparse_conv {
namespace {

// Positions of one axis of planes, of size `size`, that lie before and after
// the array.
struct Zeros {
  int64_t left;
  int64_t right;
};

Zeros ZerosOf(int64_t size, int64_t first, int64_t step, int64_t array_size) {
  const int64_t left = first >= 0 ? 0 : (-first + step - 1) / step;
  const int64_t end =
      array_size <= first ? 0 : (array_size - 1 - first) / step + 1;
  return {std::min(left, size), size - std::clamp(end, int64_t{0}, size)};
}

// Distances of rows and images in planes whose size and phases are known.
void SetDistances(Program* program) {
  int64_t shared_x = program->plane_width;
  int64_t shared_y = program->plane_height;
  for (const Phase& phase : program->source_phases) {
    const Zeros x = ZerosOf(program->plane_width, phase.first_x,
                            program->source_step_x, program->source.width);
    const Zeros y = ZerosOf(program->plane_height, phase.first_y,
                            program->source_step_y, program->source.height);
    shared_x = std::min({shared_x, x.left, x.right});
    shared_y = std::min({shared_y, y.left, y.right});
  }
  program->pitch = std::max(
      {program->grid_width, int64_t{1}, program->plane_width - shared_x});
  program->image_rows = std::max(
      {program->grid_height, int64_t{1}, program->plane_height - shared_y});
  program->images = 1;
}

// Sorts entries, which come in ascending order, into their rows.
template <typename Visit>  // visit(f) calls f(row, entry) for all entries
void FillRows(const Visit& visit, Program* program) {
  std::vector<int64_t>& rows = program->rows;
  rows.assign(program->num_rows() + 1, 0);
  visit([&](int64_t row, const Entry&) { ++rows[row + 1]; });
  for (size_t r = 1; r < rows.size(); ++r) rows[r] += rows[r - 1];
  std::vector<int64_t> next(rows.begin(), rows.end() - 1);
  program->entries.resize(rows.back());
  visit([&](int64_t row, const Entry& entry) {
    program->entries[next[row]++] = entry;
  });
}

}  // namespace

Program ForwardProgram(const Geometry& g, const std::vector<int64_t>& rows,
                       const std::vector<Nonzero>& nonzeros) {
  Program program;
  program.source = {g.height, g.width, g.in_channels, g.format};
  program.source_step_y = g.stride_height;
  program.source_step_x = g.stride_width;
  program.result = {g.out_height, g.out_width, g.out_channels, g.format};
  program.result_step_y = 1;
  program.result_step_x = 1;
  program.result_phases = {{0, 0}};
  program.grid_height = g.out_height;
  program.grid_width = g.out_width;
  program.plane_height = g.out_height + (g.filter_height - 1) *
                                            g.dilation_height / g.stride_height;
  program.plane_width =
      g.out_width + (g.filter_width - 1) * g.dilation_width / g.stride_width;

  // Only the phases that some tap reads.
  std::vector<int32_t> phases;  // by tap
  for (int64_t i = 0; i < g.filter_height; ++i) {
    for (int64_t j = 0; j < g.filter_width; ++j) {
      const int64_t first_y = i * g.dilation_height % g.stride_height;
      const int64_t first_x = j * g.dilation_width % g.stride_width;
      const Phase phase = {first_y - g.pad_top, first_x - g.pad_left};
      size_t p = 0;
      while (p < program.source_phases.size() &&
             (program.source_phases[p].first_y != phase.first_y ||
              program.source_phases[p].first_x != phase.first_x)) {
        ++p;
      }
      if (p == program.source_phases.size()) {
        program.source_phases.push_back(phase);
      }
      phases.push_back(static_cast<int32_t>(p));
    }
  }
  SetDistances(&program);
  for (int64_t i = 0; i < g.filter_height; ++i) {
    for (int64_t j = 0; j < g.filter_width; ++j) {
      program.shifts.push_back(static_cast<int32_t>(
          i * g.dilation_height / g.stride_height * program.pitch +
          j * g.dilation_width / g.stride_width));
    }
  }

  const auto visit = [&](const auto& f) {
    for (int64_t o = 0; o < g.out_channels; ++o) {
      for (int64_t k = rows[o]; k < rows[o + 1]; ++k) {
        const Nonzero& nonzero = nonzeros[k];
        const int32_t tap =
            static_cast<int32_t>(nonzero.i * g.filter_width + nonzero.j);
        f(o, Entry{static_cast<int32_t>(phases[tap] * g.in_channels +
                                        nonzero.channel),
                   tap, nonzero.index});
      }
    }
  };
  FillRows(visit, &program);
  return program;
}

Program GradInputProgram(const Geometry& g, const std::vector<int64_t>& rows,
                         const std::vector<Nonzero>& nonzeros) {
  // Position u * stride + phase of the input met tap i at position
  // u + (phase + pad - i * dilation) / stride of the output, where that
  // division leaves no rest.
  Program program;
  program.source = {g.out_height, g.out_width, g.out_channels, g.format};
  program.source_step_y = 1;
  program.source_step_x = 1;
  program.result = {g.height, g.width, g.in_channels, g.format};
  program.result_step_y = g.stride_height;
  program.result_step_x = g.stride_width;
  for (int64_t y = 0; y < g.stride_height; ++y) {
    for (int64_t x = 0; x < g.stride_width; ++x) {
      program.result_phases.push_back({y, x});
    }
  }
  program.grid_height = (g.height + g.stride_height - 1) / g.stride_height;
  program.grid_width = (g.width + g.stride_width - 1) / g.stride_width;

  struct Met {
    int64_t phase;
    int64_t delta;
  };
  const auto meet = [](int64_t tap, int64_t dilation, int64_t pad,
                       int64_t stride) {
    const int64_t sum = tap * dilation - pad;
    const int64_t phase = ((sum % stride) + stride) % stride;
    return Met{phase, (phase - sum) / stride};
  };
  std::vector<Met> met_y;
  std::vector<Met> met_x;
  for (int64_t i = 0; i < g.filter_height; ++i) {
    met_y.push_back(meet(i, g.dilation_height, g.pad_top, g.stride_height));
  }
  for (int64_t j = 0; j < g.filter_width; ++j) {
    met_x.push_back(meet(j, g.dilation_width, g.pad_left, g.stride_width));
  }
  // Deltas descend with the taps.
  const int64_t least_y = met_y.back().delta;
  const int64_t least_x = met_x.back().delta;
  program.source_phases = {{least_y, least_x}};
  program.plane_height = program.grid_height + met_y.front().delta - least_y;
  program.plane_width = program.grid_width + met_x.front().delta - least_x;
  SetDistances(&program);
  for (const Met& y : met_y) {
    for (const Met& x : met_x) {
      program.shifts.push_back(static_cast<int32_t>(
          (y.delta - least_y) * program.pitch + x.delta - least_x));
    }
  }

  // Ascending by tap within a row: tap by tap, each time over all output
  // channels.
  const int64_t taps = g.filter_height * g.filter_width;
  const auto visit = [&](const auto& f) {
    std::vector<int64_t> next(rows.begin(), rows.end() - 1);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t phase = met_y[tap / g.filter_width].phase * g.stride_width +
                            met_x[tap % g.filter_width].phase;
      for (int64_t o = 0; o < g.out_channels; ++o) {
        int64_t& k = next[o];
        for (; k < rows[o + 1] &&
               nonzeros[k].i * g.filter_width + nonzeros[k].j == tap;
             ++k) {
          f(phase * g.in_channels + nonzeros[k].channel,
            Entry{static_cast<int32_t>(o), static_cast<int32_t>(tap),
                  nonzeros[k].index});
        }
      }
    }
  };
  FillRows(visit, &program);
  return program;
}

}  // namespace sparse_conv
