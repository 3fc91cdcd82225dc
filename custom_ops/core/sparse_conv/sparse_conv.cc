// The interface: checks, references, and which kernel does it.

#include "custom_ops/core/sparse_conv/sparse_conv.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "custom_ops/core/sparse_conv/choice.h"
#include "custom_ops/core/sparse_conv/cost_model.h"
#include "custom_ops/core/sparse_conv/engine.h"
#include "custom_ops/core/sparse_conv/parallel.h"
#include "custom_ops/core/sparse_conv/pattern.h"
#include "custom_ops/core/sparse_conv/scalar.h"

namespace sparse_conv {
namespace {

template <typename Index>
SparseConvCode CreatePattern(const SparseConvGeometry* geometry,
                             const Index* positions, int64_t num_nonzeros,
                             const SparseConvOptions* options,
                             const SparseConvPool* /*pool*/,
                             SparseConvPattern** out, SparseConvError* error) {
  auto pattern = std::make_unique<SparseConvPattern>();
  const SparseConvCode code = Check(geometry, &pattern->geometry, error);
  if (code != kSparseConvOk) return code;
  const Geometry& g = pattern->geometry;
  const char* kernel = options == nullptr ? nullptr : options->kernel;
  if (!Choose(kernel, &pattern->choice)) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument kernel. Expected the name of a "
                "kernel that runs here. Received: kernel='%s'",
                kernel);
  }
  const SparseConvCode valid =
      CheckPositions(g, positions, num_nonzeros, error);
  if (valid != kSparseConvOk) return valid;
  // Calls f(place, k) for all positions, whose columns ascend.
  const auto visit = [&](const auto& f) {
    Place place = {};
    int64_t column = 0;  // position of its output channel 0
    for (int64_t k = 0; k < num_nonzeros; ++k) {
      const int64_t position = positions[k];
      if (k == 0 || position - column >= g.out_channels) {
        place = PlaceOf(g, position - position % g.out_channels);
        column = position - position % g.out_channels;
      }
      place.output = position - column;
      f(place, k);
    }
  };
  pattern->rows.assign(g.out_channels + 1, 0);
  visit(
      [&](const Place& place, int64_t) { ++pattern->rows[place.output + 1]; });
  for (int64_t o = 0; o < g.out_channels; ++o) {
    pattern->rows[o + 1] += pattern->rows[o];
  }
  std::vector<int64_t> next(pattern->rows.begin(), pattern->rows.end() - 1);
  // The first channel of the group of each output channel.
  std::vector<int32_t> channels;
  for (int64_t o = 0; o < g.out_channels; ++o) {
    channels.push_back(
        static_cast<int32_t>(o / g.group_outputs() * g.group_channels()));
  }
  pattern->nonzeros.resize(num_nonzeros);
  visit([&](const Place& place, int64_t k) {
    pattern->nonzeros[next[place.output]++] = {
        static_cast<int32_t>(place.i), static_cast<int32_t>(place.j),
        static_cast<int32_t>(place.channel) + channels[place.output],
        static_cast<int32_t>(k)};
  });
  *out = pattern.release();
  return kSparseConvOk;
}

// Calls run(layout, images) for the images of each layout. False where there
// is no memory.
template <typename Run>
bool ForLayouts(const SparseConvPattern& pattern, Purpose purpose,
                int64_t batch, const Run& run) {
  const int64_t interleaved = InterleavedImages(
      pattern.choice,
      IsLocal(pattern.ProgramOf(purpose)) || pattern.choice.jit != nullptr,
      batch);
  if (interleaved > 0 && !run(kInterleaved, Batch{0, interleaved})) {
    return false;
  }
  return interleaved == batch ||
         run(kPlanes, Batch{interleaved, batch - interleaved});
}

SparseConvCode OutOfMemory(SparseConvError* error) {
  return Fail(error, kSparseConvOutOfMemory, "Out of memory");
}

SparseConvCode Forward(const SparseConvValues& values, int64_t batch,
                       const float* input, const float* bias, bool relu,
                       float* output, const SparseConvPool* pool,
                       SparseConvError* error) {
  const SparseConvPattern& pattern = *values.pattern;
  if (batch == 0 || pattern.geometry.output_size() == 0) return kSparseConvOk;
  if (pattern.choice.kernels == nullptr) {
    ForwardScalar(pattern, values.weights.data(), batch, input, {bias, relu},
                  output, pool);
    return kSparseConvOk;
  }
  const bool done = ForLayouts(
      pattern, kForward, batch, [&](Layout layout, const Batch& images) {
        return Execute(*pattern.choice.kernels, pattern.ProgramOf(kForward),
                       pattern.ScheduleOf(kForward, layout, pool),
                       values.StreamOf(kForward, layout, pool).data(), images,
                       input, bias, relu, output, pool);
      });
  return done ? kSparseConvOk : OutOfMemory(error);
}

SparseConvCode GradInput(const SparseConvValues& values, int64_t batch,
                         const float* grad_output, float* grad_input,
                         const SparseConvPool* pool, SparseConvError* error) {
  const SparseConvPattern& pattern = *values.pattern;
  const Geometry& g = pattern.geometry;
  if (batch == 0 || g.input_size() == 0) return kSparseConvOk;
  if (pattern.choice.kernels == nullptr || g.output_size() == 0) {
    GradInputScalar(pattern, values.weights.data(), batch, grad_output,
                    grad_input, pool);
    return kSparseConvOk;
  }
  const bool done = ForLayouts(
      pattern, kGradInput, batch, [&](Layout layout, const Batch& images) {
        return Execute(*pattern.choice.kernels, pattern.ProgramOf(kGradInput),
                       pattern.ScheduleOf(kGradInput, layout, pool),
                       values.StreamOf(kGradInput, layout, pool).data(), images,
                       grad_output, nullptr, false, grad_input, pool);
      });
  return done ? kSparseConvOk : OutOfMemory(error);
}

SparseConvCode GradValues(const SparseConvPattern& pattern, int64_t batch,
                          const float* input, const float* grad_output,
                          float* grad_values, const SparseConvPool* pool,
                          const SparseConvAllocator* allocator,
                          SparseConvError* error) {
  const Geometry& g = pattern.geometry;
  const int64_t count = static_cast<int64_t>(pattern.nonzeros.size());
  if (pattern.choice.kernels == nullptr || batch == 0 || g.output_size() == 0 ||
      count == 0) {
    GradValuesScalar(pattern, batch, input, grad_output, grad_values, pool);
    return kSparseConvOk;
  }
  const int64_t lanes = pattern.choice.kernels->lanes;
  const int64_t bytes = count * lanes * static_cast<int64_t>(sizeof(float));
  const Scratch scratch(allocator, bytes);
  float* const products = scratch.data();
  if (products == nullptr) return OutOfMemory(error);
  bool first = true;
  const bool done = ForLayouts(
      pattern, kGradValues, batch, [&](Layout layout, const Batch& images) {
        const Schedule& schedule =
            pattern.ScheduleOf(kGradValues, layout, pool);
        std::memset(products, 0, bytes);
        if (!ExecuteGrad(*pattern.choice.kernels,
                         pattern.ProgramOf(kGradValues), schedule, images,
                         input, grad_output, products, pool, allocator)) {
          return false;
        }
        Parallel(pool, count, lanes, [&](int64_t begin, int64_t end) {
          for (int64_t k = begin; k < end; ++k) {
            float sum = 0;
            for (int64_t i = 0; i < lanes; ++i) sum += products[k * lanes + i];
            float& value = grad_values[schedule.order[k]];
            value = first ? sum : value + sum;
          }
        });
        first = false;
        return true;
      });
  if (!done) return OutOfMemory(error);
  // Lanes outside the image are multiplied by zero, which NaN and infinity
  // survive: what is not finite is computed by definition.
  GradNonFinite(pattern, batch, input, grad_output, grad_values, pool);
  return kSparseConvOk;
}

SparseConvPlan PlanOf(const Geometry& g, const Choice& choice,
                      const Nonzeros& nonzeros, int64_t batch,
                      int num_threads) {
  SparseConvPlan plan = {};
  plan.kernel = choice.name;
  plan.isa = sparse_conv_isa();
  plan.num_threads = std::max(1, num_threads);
  plan.density = static_cast<double>(nonzeros.count) / g.kernel_size();
  plan.sparse_ms = SparseMs(g, choice, nonzeros, batch) / plan.num_threads;
  plan.dense_ms = DenseMs(g, batch) / plan.num_threads;
  plan.use_sparse = IsFaster(plan.sparse_ms, plan.dense_ms);
  plan.break_even = BreakEven(g, choice, batch);
  return plan;
}

Nonzeros NonzerosOf(const SparseConvPattern& pattern) {
  const Geometry& g = pattern.geometry;
  std::vector<bool> columns(g.kernel_size() / g.out_channels);
  for (const Nonzero& nonzero : pattern.nonzeros) {
    columns[(nonzero.i * g.filter_width + nonzero.j) * g.group_channels() +
            nonzero.channel % g.group_channels()] = true;
  }
  Nonzeros nonzeros = {static_cast<int64_t>(pattern.nonzeros.size()), 0, 0};
  nonzeros.columns = std::count(columns.begin(), columns.end(), true);
  for (int64_t o = 0; o < g.out_channels; ++o) {
    nonzeros.rows += pattern.rows[o] != pattern.rows[o + 1];
  }
  return nonzeros;
}

// Nothing thrown crosses the C interface.
template <typename Function>
SparseConvCode Guarded(SparseConvError* error, const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return Fail(error, kSparseConvOutOfMemory, "Out of memory");
  }
}

SparseConvCode CheckCall(const void* handle, int64_t batch,
                         SparseConvError* error) {
  if (handle == nullptr || batch < 0) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument batch. Expected an integer >= 0 "
                "and a handle. Received: batch=%lld%s",
                static_cast<long long>(batch),
                handle == nullptr ? " without a handle" : "");
  }
  return kSparseConvOk;
}

}  // namespace
}  // namespace sparse_conv

using sparse_conv::CheckCall;
using sparse_conv::Fail;
using sparse_conv::Geometry;
using sparse_conv::Guarded;

extern "C" {

const char* sparse_conv_kernel_name(int index) {
  return sparse_conv::KernelName(index);
}

SparseConvCode sparse_conv_pattern_create_int32(
    const SparseConvGeometry* geometry, const int32_t* positions,
    int64_t num_nonzeros, const SparseConvOptions* options,
    const SparseConvPool* pool, SparseConvPattern** pattern,
    SparseConvError* error) {
  return Guarded(error, [&] {
    return sparse_conv::CreatePattern(geometry, positions, num_nonzeros,
                                      options, pool, pattern, error);
  });
}

SparseConvCode sparse_conv_pattern_create_int64(
    const SparseConvGeometry* geometry, const int64_t* positions,
    int64_t num_nonzeros, const SparseConvOptions* options,
    const SparseConvPool* pool, SparseConvPattern** pattern,
    SparseConvError* error) {
  return Guarded(error, [&] {
    return sparse_conv::CreatePattern(geometry, positions, num_nonzeros,
                                      options, pool, pattern, error);
  });
}

void sparse_conv_pattern_retain(SparseConvPattern* pattern) {
  pattern->references.fetch_add(1, std::memory_order_relaxed);
}

void sparse_conv_pattern_release(SparseConvPattern* pattern) {
  if (pattern != nullptr && pattern->references.fetch_sub(1) == 1) {
    delete pattern;
  }
}

const SparseConvGeometry* sparse_conv_pattern_geometry(
    const SparseConvPattern* pattern) {
  return &pattern->geometry;
}

int64_t sparse_conv_pattern_num_nonzeros(const SparseConvPattern* pattern) {
  return static_cast<int64_t>(pattern->nonzeros.size());
}

int64_t sparse_conv_pattern_bytes(const SparseConvPattern* pattern) {
  return pattern->bytes();
}

SparseConvCode sparse_conv_values_create(SparseConvPattern* pattern,
                                         const void* values,
                                         SparseConvDtype dtype,
                                         const SparseConvPool* pool,
                                         SparseConvValues** out,
                                         SparseConvError* error) {
  const SparseConvCode code = CheckCall(pattern, 0, error);
  if (code != kSparseConvOk) return code;
  if (dtype != kSparseConvFloat32 && dtype != kSparseConvBfloat16) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument dtype. Expected kSparseConvFloat32 "
                "or kSparseConvBfloat16. Received: dtype=%d",
                static_cast<int>(dtype));
  }
  return Guarded(error, [&] {
    auto made = std::make_unique<SparseConvValues>();
    const size_t count = pattern->nonzeros.size();
    made->weights.resize(count);
    if (dtype == kSparseConvFloat32) {
      if (count != 0) {
        std::memcpy(made->weights.data(), values, count * sizeof(float));
      }
    } else {
      const uint16_t* halves = static_cast<const uint16_t*>(values);
      for (size_t k = 0; k < count; ++k) {
        const uint32_t bits = static_cast<uint32_t>(halves[k]) << 16;
        std::memcpy(&made->weights[k], &bits, sizeof(bits));
      }
    }
    sparse_conv_pattern_retain(pattern);
    made->pattern = pattern;
    // What calls have used before they will use again.
    for (int purpose = 0; purpose < sparse_conv::kPurposes; ++purpose) {
      for (int layout = 0; layout < sparse_conv::kLayouts; ++layout) {
        if (purpose != sparse_conv::kGradValues &&
            pattern->schedules[purpose][layout].Peek() != nullptr) {
          made->StreamOf(static_cast<sparse_conv::Purpose>(purpose),
                         static_cast<sparse_conv::Layout>(layout), pool);
        }
      }
    }
    *out = made.release();
    return kSparseConvOk;
  });
}

void sparse_conv_values_retain(SparseConvValues* values) {
  values->references.fetch_add(1, std::memory_order_relaxed);
}

void sparse_conv_values_release(SparseConvValues* values) {
  if (values != nullptr && values->references.fetch_sub(1) == 1) {
    sparse_conv_pattern_release(values->pattern);
    delete values;
  }
}

SparseConvCode sparse_conv_forward(const SparseConvValues* values,
                                   int64_t batch, const float* input,
                                   const float* bias,
                                   SparseConvActivation activation,
                                   float* output, const SparseConvPool* pool,
                                   const SparseConvAllocator* /*allocator*/,
                                   SparseConvError* error) {
  const SparseConvCode code = CheckCall(values, batch, error);
  if (code != kSparseConvOk) return code;
  return Guarded(error, [&] {
    return sparse_conv::Forward(*values, batch, input, bias,
                                activation == kSparseConvRelu, output, pool,
                                error);
  });
}

SparseConvCode sparse_conv_grad_input(const SparseConvValues* values,
                                      int64_t batch, const float* grad_output,
                                      float* grad_input,
                                      const SparseConvPool* pool,
                                      const SparseConvAllocator* /*allocator*/,
                                      SparseConvError* error) {
  const SparseConvCode code = CheckCall(values, batch, error);
  if (code != kSparseConvOk) return code;
  return Guarded(error, [&] {
    return sparse_conv::GradInput(*values, batch, grad_output, grad_input, pool,
                                  error);
  });
}

SparseConvCode sparse_conv_grad_values(const SparseConvPattern* pattern,
                                       int64_t batch, const float* input,
                                       const float* grad_output,
                                       float* grad_values, float* grad_bias,
                                       const SparseConvPool* pool,
                                       const SparseConvAllocator* allocator,
                                       SparseConvError* error) {
  const SparseConvCode code = CheckCall(pattern, batch, error);
  if (code != kSparseConvOk) return code;
  return Guarded(error, [&] {
    if (grad_bias != nullptr) {
      sparse_conv::GradBias(pattern->geometry, batch, grad_output, grad_bias,
                            pool);
    }
    return sparse_conv::GradValues(*pattern, batch, input, grad_output,
                                   grad_values, pool, allocator, error);
  });
}

SparseConvCode sparse_conv_estimate(const SparseConvGeometry* geometry,
                                    int64_t num_nonzeros, int64_t batch,
                                    int num_threads, SparseConvPlan* plan,
                                    SparseConvError* error) {
  Geometry g;
  SparseConvCode code = sparse_conv::Check(geometry, &g, error);
  if (code == kSparseConvOk) code = CheckCall(plan, batch, error);
  if (code != kSparseConvOk) return code;
  if (num_nonzeros < 0 || num_nonzeros > g.kernel_size()) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument num_nonzeros. Expected 0 to %lld, "
                "the elements of the kernel. Received: num_nonzeros=%lld",
                static_cast<long long>(g.kernel_size()),
                static_cast<long long>(num_nonzeros));
  }
  sparse_conv::Choice choice;
  sparse_conv::Choose(nullptr, &choice);
  *plan = sparse_conv::PlanOf(g, choice, sparse_conv::AtRandom(g, num_nonzeros),
                              batch, num_threads);
  return kSparseConvOk;
}

SparseConvCode sparse_conv_pattern_plan(const SparseConvPattern* pattern,
                                        int64_t batch, int num_threads,
                                        SparseConvPlan* plan,
                                        SparseConvError* error) {
  const SparseConvCode code = CheckCall(pattern, batch, error);
  if (code != kSparseConvOk) return code;
  *plan = sparse_conv::PlanOf(pattern->geometry, pattern->choice,
                              sparse_conv::NonzerosOf(*pattern), batch,
                              num_threads);
  plan->prepared_bytes = pattern->bytes();
  plan->code_bytes = pattern->code_bytes();
  return kSparseConvOk;
}

}  // extern "C"
