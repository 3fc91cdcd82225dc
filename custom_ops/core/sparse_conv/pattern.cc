#include "custom_ops/core/sparse_conv/pattern.h"

#include <algorithm>

#include "custom_ops/core/sparse_conv/parallel.h"

namespace sparse_conv {
namespace {

// Code and weights of a non-zero, and what of them the second cache keeps
// beside planes. Code that is larger comes from far: it has to be used often.
constexpr int64_t kNonzeroBytes = 11;
constexpr int64_t kCodeBytes = int64_t{2} << 20;

ScheduleOptions OptionsOf(const Choice& choice, Purpose purpose, Layout layout,
                          const Program& program) {
  const bool local = IsLocal(program);
  ScheduleOptions options = {};
  options.layout = layout;
  options.lanes = choice.kernels->lanes;
  options.list_tile = choice.kernels->max_vectors[1];
  options.code_tile = local ? 6 : 12;
  options.block_bytes = 48 << 10;
  options.chunk_bytes = 192 << 10;
  options.strip_bytes = 256 << 10;
  options.strip_vectors = local ? 4 : 12;
  options.share = purpose != kGradValues;
  if (purpose == kGradValues) {
    // Rows are what the gradient of values has to split.
    options.chunk_rows = 64;
    options.block_bytes = 24 << 10;
    return options;
  }
  // And what one image has to split.
  options.chunk_rows = layout == kPlanes && !local ? 128 : INT64_MAX;
  options.jit = choice.jit;
  if (options.jit == nullptr) {
    options.block_bytes = 24 << 10;
  } else if (program.num_entries() * kNonzeroBytes > kCodeBytes) {
    options.chunk_rows = 48;
    options.strip_bytes = 1 << 20;
    options.strip_vectors = local ? 4 : 36;
  }
  return options;
}

// The same convolution with all pixels in one row, where they are independent.
Geometry Flattened(const Geometry& geometry) {
  Geometry g = geometry;
  if (g.filter_height == 1 && g.filter_width == 1 && g.stride_height == 1 &&
      g.stride_width == 1 && g.out_height == g.height &&
      g.out_width == g.width && g.pad_top == 0 && g.pad_left == 0) {
    g.width = g.out_width = g.height * g.width;
    g.height = g.out_height = 1;
  }
  return g;
}

}  // namespace
}  // namespace sparse_conv

using sparse_conv::Layout;
using sparse_conv::Program;
using sparse_conv::Purpose;
using sparse_conv::Schedule;

const Program& SparseConvPattern::ProgramOf(Purpose purpose) const {
  const bool grad_input = purpose == sparse_conv::kGradInput;
  return programs[grad_input].Get([&] {
    const sparse_conv::Geometry g = sparse_conv::Flattened(geometry);
    return grad_input ? GradInputProgram(g, rows, nonzeros)
                      : ForwardProgram(g, rows, nonzeros);
  });
}

const Schedule& SparseConvPattern::ScheduleOf(
    Purpose purpose, Layout layout, const SparseConvPool* pool) const {
  return schedules[purpose][layout].Get([&] {
    return MakeSchedule(
        ProgramOf(purpose),
        sparse_conv::OptionsOf(choice, purpose, layout, ProgramOf(purpose)),
        pool);
  });
}

int64_t SparseConvPattern::bytes() const {
  int64_t bytes = static_cast<int64_t>(nonzeros.size() * sizeof(nonzeros[0]) +
                                       rows.size() * sizeof(rows[0]));
  for (const auto& lazy : programs) {
    if (const Program* program = lazy.Peek()) {
      bytes += static_cast<int64_t>(
          program->entries.size() * sizeof(program->entries[0]) +
          program->rows.size() * sizeof(program->rows[0]));
    }
  }
  for (const auto& layouts : schedules) {
    for (const auto& lazy : layouts) {
      if (const Schedule* schedule = lazy.Peek()) bytes += schedule->bytes();
    }
  }
  return bytes;
}

int64_t SparseConvPattern::code_bytes() const {
  int64_t bytes = 0;
  for (const auto& layouts : schedules) {
    for (const auto& lazy : layouts) {
      const Schedule* schedule = lazy.Peek();
      if (schedule != nullptr) bytes += schedule->code_bytes;
    }
  }
  return bytes;
}

const std::vector<float>& SparseConvValues::StreamOf(
    Purpose purpose, Layout layout, const SparseConvPool* pool) const {
  const Schedule& schedule = pattern->ScheduleOf(purpose, layout, pool);
  return streams[purpose][layout].Get([&] {
    std::vector<float> stream(schedule.order.size());
    const int64_t size = static_cast<int64_t>(stream.size());
    constexpr int64_t kPart = 16384;
    sparse_conv::Parallel(pool, (size + kPart - 1) / kPart, 2 * kPart,
                          [&](int64_t begin, int64_t end) {
                            const int64_t last = std::min(size, end * kPart);
                            for (int64_t k = begin * kPart; k < last; ++k) {
                              stream[k] = weights[schedule.order[k]];
                            }
                          });
    return stream;
  });
}
