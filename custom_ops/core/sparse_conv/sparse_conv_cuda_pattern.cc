#include "custom_ops/core/sparse_conv/sparse_conv_cuda_pattern.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_launch_inl.h"

namespace sparse_conv {
namespace cuda {
namespace {

constexpr const char* kKernelNames[] = {"direct", "tf32", "bf16"};

// The kinds that a name stands for.
std::vector<KernelKind> KindsOf(const std::string& name) {
  if (name.empty()) return {kDirect, kTf32};
  for (KernelKind kind : {kDirect, kTf32, kBf16}) {
    if (name == kKernelNames[kind]) return {kind};
  }
  return {};
}

// What the options leave open.
std::vector<Variant> VariantsOf(const std::vector<KernelKind>& kinds,
                                const SparseConvCudaOptions& options) {
  std::vector<Variant> variants;
  for (KernelKind kind : kinds) {
    for (int columns : {1, 2}) {
      if (options.columns != 0 && options.columns != columns) continue;
      if (kind == kDirect) {
        variants.push_back({kind, 1, columns == 2});
        continue;
      }
      for (int filters : {16, 32, 64}) {
        if (options.tile_filters == 0 || options.tile_filters == filters) {
          variants.push_back({kind, filters, columns == 2});
        }
      }
    }
  }
  return variants;
}

// Appends a table to the image and returns where it begins.
template <typename T>
int64_t Append(const std::vector<T>& table, std::vector<char>* image) {
  const size_t begin = image->size();
  const size_t bytes = table.size() * sizeof(T);
  image->resize(begin + (bytes + 15) / 16 * 16);
  if (bytes > 0) std::memcpy(image->data() + begin, table.data(), bytes);
  return static_cast<int64_t>(begin);
}

// Builds all problems with one variant. False where that cannot be.
bool BuildAll(const std::vector<Problem>& problems, const Variant& variant,
              int64_t batch, SparseConvCudaPattern* pattern) {
  pattern->variant = variant;
  Tables tables;
  tables.slots.assign(pattern->num_nonzeros, -1);
  pattern->parts.resize(problems.size());
  for (size_t i = 0; i < problems.size(); ++i) {
    if (!Build(problems[i], variant, pattern->pixel_steps, batch,
               &pattern->parts[i], &tables, &pattern->cost)) {
      return false;
    }
  }
  Append(tables.slots, &pattern->image);
  pattern->stream = Append(tables.stream, &pattern->image);
  pattern->num_records = static_cast<int64_t>(tables.stream.size() / 8);
  const int64_t sets = Append(tables.sets, &pattern->image);
  const int64_t chunks = Append(tables.chunks, &pattern->image);
  const int64_t units = Append(tables.units, &pattern->image);
  for (Part& part : pattern->parts) {
    part.stream = pattern->stream;
    part.sets = sets + part.sets * static_cast<int64_t>(sizeof(Set));
    part.chunks = chunks;
    part.units = units;
  }
  return true;
}

template <typename Index>
SparseConvCode Create(const SparseConvGeometry* geometry,
                      const Index* positions, int64_t num_nonzeros,
                      const SparseConvCudaOptions* options,
                      SparseConvCudaPattern** out, SparseConvError* error) {
  SparseConvCudaPattern base = {};
  const SparseConvCode code = Check(geometry, &base.geometry, error);
  if (code != kSparseConvOk) return code;
  const Geometry& g = base.geometry;
  const SparseConvCudaOptions defaults = {};
  if (options == nullptr) options = &defaults;
  const char* name = options->kernel == nullptr ? "" : options->kernel;
  const std::vector<KernelKind> kinds = KindsOf(name);
  if (kinds.empty()) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument kernel. Expected 'direct', 'tf32' "
                "or 'bf16', or none. Received: kernel='%s'",
                name);
  }
  int purpose;  // of an enum, but a caller may have written anything
  std::memcpy(&purpose, &options->purpose, sizeof(purpose));
  if (purpose != kSparseConvCudaForward &&
      purpose != kSparseConvCudaGradInput) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument purpose. Expected "
                "kSparseConvCudaForward or kSparseConvCudaGradInput. Received: "
                "purpose=%d",
                purpose);
  }
  const struct {
    const char* name;
    int value;
    int step;
    int most;
    const char* expected;
  } choices[] = {
      {"tile_filters", options->tile_filters, 16, 64, "0, 16, 32 or 64"},
      {"pixels", options->pixels, 64, 256, "0, 64, 128, 192 or 256"},
      {"columns", options->columns, 1, 2, "0, 1 or 2"},
  };
  for (const auto& choice : choices) {
    if (choice.value < 0 || choice.value > choice.most ||
        choice.value % choice.step != 0 ||
        (choice.step == 16 && choice.value == 48)) {
      return Fail(error, kSparseConvInvalidArgument,
                  "Invalid value for argument %s. Expected %s. Received: %s=%d",
                  choice.name, choice.expected, choice.name, choice.value);
    }
  }
  // Rows beyond the last, of a block, are counted in 32 bits.
  constexpr int64_t kMaxSide = int64_t{1} << 29;
  if (g.height + g.pad_top + g.pad_bottom >= kMaxSide ||
      g.width + g.pad_left + g.pad_right >= kMaxSide) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument geometry. Expected less than 2^29 "
                "rows and columns with pads. Received: 2^29 or more");
  }
  const SparseConvCode valid =
      CheckPositions(g, positions, num_nonzeros, error);
  if (valid != kSparseConvOk) return valid;
  base.purpose = options->purpose;
  base.num_nonzeros = num_nonzeros;
  const std::vector<Problem> problems =
      ProblemsOf(g, options->purpose,
                 std::vector<int64_t>(positions, positions + num_nonzeros));
  const int64_t batch = std::max<int64_t>(options->batch, 1);
  base.pixel_steps = options->pixels > 0 ? options->pixels / kPixelStep
                     : problems.empty()  ? 1
                                         : ChoosePixelSteps(problems[0], batch);
  std::unique_ptr<SparseConvCudaPattern> best;
  for (const Variant& variant : VariantsOf(kinds, *options)) {
    auto pattern = std::make_unique<SparseConvCudaPattern>(base);
    if (BuildAll(problems, variant, batch, pattern.get()) &&
        (best == nullptr || pattern->cost.cycles < best->cost.cycles)) {
      best = std::move(pattern);
    }
  }
  if (best == nullptr) {
    return Fail(error, kSparseConvInvalidArgument,
                "Invalid value for argument options. Expected patches of at "
                "most %d bytes and less than 2^31 weights, zeros of tiles "
                "included. Received: more",
                kStageBytes);
  }
  *out = best.release();
  return kSparseConvOk;
}

template <typename Index>
SparseConvCode CreateGuarded(const SparseConvGeometry* geometry,
                             const Index* positions, int64_t num_nonzeros,
                             const SparseConvCudaOptions* options,
                             SparseConvCudaPattern** out,
                             SparseConvError* error) {
  try {
    return Create(geometry, positions, num_nonzeros, options, out, error);
  } catch (const std::bad_alloc&) {
    return Fail(error, kSparseConvOutOfMemory, "Out of memory");
  }
}

}  // namespace
}  // namespace cuda
}  // namespace sparse_conv

using namespace sparse_conv::cuda;  // NOLINT: the C interface follows.

extern "C" SparseConvCode sparse_conv_cuda_pattern_create_int32(
    const SparseConvGeometry* geometry, const int32_t* positions,
    int64_t num_nonzeros, const SparseConvCudaOptions* options,
    SparseConvCudaPattern** pattern, SparseConvError* error) {
  return CreateGuarded(geometry, positions, num_nonzeros, options, pattern,
                       error);
}

extern "C" SparseConvCode sparse_conv_cuda_pattern_create_int64(
    const SparseConvGeometry* geometry, const int64_t* positions,
    int64_t num_nonzeros, const SparseConvCudaOptions* options,
    SparseConvCudaPattern** pattern, SparseConvError* error) {
  return CreateGuarded(geometry, positions, num_nonzeros, options, pattern,
                       error);
}

extern "C" void sparse_conv_cuda_pattern_free(SparseConvCudaPattern* pattern) {
  delete pattern;
}

extern "C" int64_t sparse_conv_cuda_image_bytes(
    const SparseConvCudaPattern* pattern) {
  return static_cast<int64_t>(pattern->image.size());
}

extern "C" const void* sparse_conv_cuda_image(
    const SparseConvCudaPattern* pattern) {
  return pattern->image.data();
}

extern "C" void sparse_conv_cuda_pattern_plan(
    const SparseConvCudaPattern* pattern, SparseConvCudaPlan* plan) {
  const Cost& cost = pattern->cost;
  *plan = {};
  plan->kernel = kKernelNames[pattern->variant.kind];
  plan->tile_filters = pattern->variant.tile_filters;
  plan->is_gathered = pattern->variant.is_gathered;
  plan->pixels = kPixelStep * pattern->pixel_steps;
  plan->useful =
      cost.products > 0
          ? static_cast<double>(pattern->num_nonzeros) / cost.products
          : 1.0;
  plan->cycles = cost.cycles;
  plan->blocks = cost.blocks;
}
