// From patterns to launches. Device launches kernels: a stream of a GPU, or
// loops of the host.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAUNCH_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAUNCH_INL_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_build.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_grad_values_inl.h"
#include "custom_ops/core/sparse_conv/sparse_conv_cuda_kernels_inl.h"

// Parts of an image: values' slots, stream, then what parts point to.
struct SparseConvCudaPattern {
  sparse_conv::Geometry geometry;
  SparseConvCudaPurpose purpose;
  sparse_conv::cuda::Variant variant;
  int pixel_steps;
  std::vector<sparse_conv::cuda::Part> parts;
  int64_t num_nonzeros;
  int64_t stream;  // where it begins in the image; slots are at its beginning
  int64_t num_records;  // of 8 bytes, as long as the stream
  std::vector<char> image;
  sparse_conv::cuda::Cost cost;
};

namespace sparse_conv {
namespace cuda {

template <typename Device>
void SetValues(const SparseConvCudaPattern& pattern, char* memory,
               const void* values, SparseConvDtype dtype, Device* device) {
  SetValuesKernel kernel = {};
  kernel.values = values;
  kernel.is_bfloat16 = dtype == kSparseConvBfloat16;
  kernel.kind = pattern.variant.kind;
  kernel.slots = reinterpret_cast<const int32_t*>(memory);
  kernel.num_nonzeros = pattern.num_nonzeros;
  kernel.stream = memory + pattern.stream;
  device->LaunchThreads(kernel,
                        (pattern.num_nonzeros + SetValuesKernel::kThreads - 1) /
                            SetValuesKernel::kThreads);
}

template <KernelKind kind, int pixel_steps, typename Device>
void LaunchTile(const Call& call, int tile_filters, int64_t blocks,
                Device* device) {
  switch (tile_filters) {
    case 16:
      return device->Launch(TileKernel<kind, 16, pixel_steps>{call}, blocks);
    case 32:
      return device->Launch(TileKernel<kind, 32, pixel_steps>{call}, blocks);
    default:
      return device->Launch(TileKernel<kind, 64, pixel_steps>{call}, blocks);
  }
}

template <int pixel_steps, typename Device>
void LaunchSteps(const Call& call, const Variant& variant, int64_t blocks,
                 Device* device) {
  switch (variant.kind) {
    case kDirect:
      return device->Launch(DirectKernel<pixel_steps>{call}, blocks);
    case kTf32:
      return LaunchTile<kTf32, pixel_steps>(call, variant.tile_filters, blocks,
                                            device);
    case kBf16:
      return LaunchTile<kBf16, pixel_steps>(call, variant.tile_filters, blocks,
                                            device);
  }
}

template <typename Device>
void Convolve(const SparseConvCudaPattern& pattern, const char* memory,
              int64_t batch, const float* input, const float* bias, bool relu,
              float* output, Device* device) {
  if (batch == 0) return;
  for (const Part& part : pattern.parts) {
    const Call call = {
        part,   memory, input, bias,
        output, batch,  relu,  reinterpret_cast<uintptr_t>(input) % 16 == 0};
    const int64_t tiles = (batch + part.tile_images - 1) / part.tile_images *
                          part.tiles_y * part.tiles_x;
    const int64_t blocks = tiles * part.num_sets;
    switch (pattern.pixel_steps) {
      case 1:
        LaunchSteps<1>(call, pattern.variant, blocks, device);
        break;
      case 2:
        LaunchSteps<2>(call, pattern.variant, blocks, device);
        break;
      case 3:
        LaunchSteps<3>(call, pattern.variant, blocks, device);
        break;
      default:
        LaunchSteps<4>(call, pattern.variant, blocks, device);
        break;
    }
  }
}

// --- Gradients of values and bias --------------------------------------------

// How the sums over pixels are split, and the workspace that takes, in floats.
struct GradValuesPlan {
  int64_t num_tiles;
  int64_t splits;
  int64_t records;
  int64_t bias_splits;
  int64_t workspace;
};

inline GradValuesPlan PlanGradValues(const SparseConvCudaPattern& pattern,
                                     int64_t batch) {
  constexpr int64_t kBlocks = 1024;  // some for each of 132 multiprocessors
  constexpr int64_t kMaxSplits = 64;
  GradValuesPlan plan = {};
  if (pattern.parts.empty() || batch == 0) return plan;
  const Part& part = pattern.parts[0];
  plan.num_tiles = (batch + part.tile_images - 1) / part.tile_images *
                   part.tiles_y * part.tiles_x;
  plan.splits =
      std::min({plan.num_tiles, kMaxSplits,
                std::max<int64_t>(1, kBlocks / std::max(1, part.num_chunks))});
  plan.records = pattern.num_records;
  plan.bias_splits = std::min(plan.num_tiles, kMaxSplits);
  plan.workspace = plan.splits * plan.records +
                   plan.bias_splits * pattern.geometry.out_channels;
  return plan;
}

template <typename Device>
void GradValues(const SparseConvCudaPattern& pattern, const char* memory,
                int64_t batch, const float* input, const float* grad_output,
                float* grad_values, float* grad_bias, float* workspace,
                Device* device) {
  const GradValuesPlan plan = PlanGradValues(pattern, batch);
  const Geometry& g = pattern.geometry;
  float* bias_sums = workspace + plan.splits * plan.records;
  if (plan.num_tiles > 0) {
    const Part& part = pattern.parts[0];
    const Call call = {part,    memory, input, nullptr,
                       nullptr, batch,  false, false};
    const int64_t blocks = part.num_chunks * plan.splits;
    switch (pattern.pixel_steps) {
      case 1:
        device->Launch(
            GradValuesKernel<1>{call, grad_output, plan.num_tiles, plan.splits,
                                plan.records, workspace},
            blocks);
        break;
      case 2:
        device->Launch(
            GradValuesKernel<2>{call, grad_output, plan.num_tiles, plan.splits,
                                plan.records, workspace},
            blocks);
        break;
      case 3:
        device->Launch(
            GradValuesKernel<3>{call, grad_output, plan.num_tiles, plan.splits,
                                plan.records, workspace},
            blocks);
        break;
      default:
        device->Launch(
            GradValuesKernel<4>{call, grad_output, plan.num_tiles, plan.splits,
                                plan.records, workspace},
            blocks);
        break;
    }
    if (grad_bias != nullptr) {
      device->Launch(
          GradBiasKernel{grad_output, batch, g.out_height * g.out_width,
                         g.out_channels, g.format == kSparseConvNhwc,
                         plan.bias_splits, bias_sums},
          plan.bias_splits * GradBiasKernel::NumGroups(g.out_channels));
    }
  }
  const auto sum = [&](const int32_t* slots, int64_t count, const float* parts,
                       int64_t splits, int64_t pitch, float* sums) {
    device->LaunchThreads(
        SumPartsKernel{slots, count, parts, splits, pitch, sums},
        (count + SumPartsKernel::kThreads - 1) / SumPartsKernel::kThreads);
  };
  sum(reinterpret_cast<const int32_t*>(memory), pattern.num_nonzeros, workspace,
      plan.splits, plan.records, grad_values);
  if (grad_bias != nullptr) {
    sum(nullptr, g.out_channels, bias_sums, plan.bias_splits, g.out_channels,
        grad_bias);
  }
}

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_LAUNCH_INL_H_
