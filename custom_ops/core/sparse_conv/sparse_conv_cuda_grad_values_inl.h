// Kernels of the gradients of values and bias, in the form of
// sparse_conv_cuda_kernels_inl.h. They read the tables of the direct kernel.
//
// Sums over pixels are split: each split leaves its part, and SumPartsKernel
// adds the parts in their order, so that no atomics are needed and results do
// not vary.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_GRAD_VALUES_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_GRAD_VALUES_INL_H_

#include <cstdint>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_kernels_inl.h"

namespace sparse_conv {
namespace cuda {

// A block has a chunk and every splits-th tile of pixels. Lanes are pixels; a
// warp keeps grad_output of 8 filters in registers, and adds over its lanes for
// each non-zero.
template <int pixel_steps>
struct GradValuesKernel {
  static constexpr int kThreads = 256;
  static constexpr int kPixels = kPixelStep * pixel_steps;
  static constexpr int kOwnPixels = kPixels / kWarp;
  static constexpr int kOwnFilters = kFilters * kWarp / kThreads;
  static constexpr int kEnds = 1;
  static constexpr int kSumsBytes = kStageBytes / 2;  // 4 bytes a record of 8
  static constexpr int kSharedBytes = kStages * kStageBytes + kSumsBytes;

  struct Registers {
    int base[kOwnPixels];
  };

  Call call;
  const float* grad_output;
  int64_t num_tiles;
  int64_t splits;
  int64_t num_records;
  float* parts;  // [splits, num_records]

  SPARSE_CONV_HOST_DEVICE int NumSteps(int64_t block) const {
    const int64_t split = block / call.part.num_chunks;
    return static_cast<int>((num_tiles - split + splits - 1) / splits);
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Begin(int64_t block, int thread, char* shared,
                                     Registers* own, Thread* machine) const {
    Start(block, 0, thread, shared, machine);
    SPARSE_CONV_UNROLL
    for (int p = 0; p < kOwnPixels; ++p) {
      own->base[p] = BaseOf(call.part, p * kWarp + thread % kWarp);
    }
    const int count = NumRecords(OwnChunk(block));
    for (int i = thread; i < count; i += kThreads) Sums(shared)[i] = 0.0f;
    machine->Wait();
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Step(int step, int64_t block, int thread,
                                    char* shared, Registers* own,
                                    Thread* machine) const {
    Start(block, step + 1, thread, shared, machine);
    const Set& set = reinterpret_cast<const Set*>(
        call.memory + call.part.sets)[OwnChunk(block).set];
    const int first = thread / kWarp * kOwnFilters;
    const Origin origin = OriginOfTile(call.part, TileOf(block, step));
    float grad[kOwnFilters][kOwnPixels];
    bool is_pixel[kOwnPixels];
    SPARSE_CONV_UNROLL
    for (int p = 0; p < kOwnPixels; ++p) {
      const int64_t pixel = OutputOf(call, origin, p * kWarp + thread % kWarp);
      is_pixel[p] = pixel >= 0;
      SPARSE_CONV_UNROLL
      for (int f = 0; f < kOwnFilters; ++f) {
        const int filter = set.filters[first + f];
        grad[f][p] =
            pixel < 0 || filter < 0
                ? 0.0f
                : grad_output[pixel + int64_t{filter} * call.part.out_channel];
      }
    }
    const float* patch = PatchOf(shared, step);
    const char* stream = StreamOf(call.part, shared, step);
    const int* bounds = reinterpret_cast<const int*>(stream) + first;
    const Weighted* records =
        reinterpret_cast<const Weighted*>(stream + BoundsBytes(kFilters));
    SPARSE_CONV_UNROLL
    for (int f = 0; f < kOwnFilters; ++f) {
      const int end = bounds[f + 1];
      for (int i = bounds[f]; i < end; ++i) {
        const float* column = patch + records[i].offset;
        float sum = 0.0f;
        SPARSE_CONV_UNROLL
        for (int p = 0; p < kOwnPixels; ++p) {
          // NaN where there is no pixel is nothing.
          const float value = column[own->base[p]];
          sum = fmaf(grad[f][p], is_pixel[p] ? value : 0.0f, sum);
        }
        machine->AddOfWarp(sum, &Sums(shared)[i]);
      }
    }
    machine->Wait();
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void End(int, int64_t block, int thread, char* shared,
                                   Registers*, Thread*) const {
    const Chunk chunk = OwnChunk(block);
    const int count = NumRecords(chunk);
    float* to = parts + block / call.part.num_chunks * num_records +
                int64_t{chunk.first_vector} * 2 + BoundsBytes(kFilters) / 8;
    for (int i = thread; i < count; i += kThreads) to[i] = Sums(shared)[i];
  }

 private:
  static SPARSE_CONV_HOST_DEVICE float* Sums(char* shared) {
    return reinterpret_cast<float*>(shared + kStages * kStageBytes);
  }

  // Padding included.
  static SPARSE_CONV_HOST_DEVICE int NumRecords(const Chunk& chunk) {
    return (chunk.num_vectors * 16 - BoundsBytes(kFilters)) / 8;
  }

  // Neighbouring blocks read the same pixels.
  SPARSE_CONV_HOST_DEVICE Chunk OwnChunk(int64_t block) const {
    return ChunkOf(call, block % call.part.num_chunks);
  }

  SPARSE_CONV_HOST_DEVICE int64_t TileOf(int64_t block, int step) const {
    return block / call.part.num_chunks + step * splits;
  }

  // The stream stays where it is, once in either stage.
  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Start(int64_t block, int step, int thread,
                                     char* shared, Thread* machine) const {
    if (step < NumSteps(block)) {
      const Chunk chunk = OwnChunk(block);
      CopyPatches<kThreads>(call, chunk,
                            OriginOfTile(call.part, TileOf(block, step)),
                            thread, PatchOf(shared, step), machine);
      if (step < kStages) {
        CopyStream<kThreads>(call, chunk, thread,
                             StreamOf(call.part, shared, step), machine);
      }
    }
    machine->Commit();
  }
};

// A block has 32 filters, one a lane, and a split of the pixels of all images,
// of which each warp adds a run.
struct GradBiasKernel {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kEnds = 1;
  static constexpr int kSharedBytes = kThreads * 4;

  struct Registers {};

  const float* grad_output;
  int64_t batch;
  int64_t pixels;  // of an image
  int64_t num_filters;
  bool is_nhwc;
  int64_t splits;
  float* parts;  // [splits, num_filters]

  static int64_t NumGroups(int64_t num_filters) {
    return (num_filters + kWarp - 1) / kWarp;
  }

  SPARSE_CONV_HOST_DEVICE int NumSteps(int64_t) const { return 0; }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Begin(int64_t block, int thread, char* shared,
                                     Registers*, Thread*) const {
    const int64_t filter = block / splits * kWarp + thread % kWarp;
    const int64_t runs = splits * kWarps;
    const int64_t run = block % splits * kWarps + thread / kWarp;
    const int64_t total = batch * pixels;
    float sum = 0.0f;
    if (filter < num_filters) {
      const int64_t end = total * (run + 1) / runs;
      for (int64_t p = total * run / runs; p < end; ++p) {
        const int64_t image = is_nhwc ? 0 : p / pixels;
        sum += grad_output[is_nhwc ? p * num_filters + filter
                                   : (image * num_filters + filter) * pixels +
                                         p - image * pixels];
      }
    }
    reinterpret_cast<float*>(shared)[thread] = sum;
  }

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void Step(int, int64_t, int, char*, Registers*,
                                    Thread*) const {}

  template <typename Thread>
  SPARSE_CONV_HOST_DEVICE void End(int, int64_t block, int thread, char* shared,
                                   Registers*, Thread*) const {
    const int64_t filter = block / splits * kWarp + thread;
    if (thread >= kWarp || filter >= num_filters) return;
    float sum = 0.0f;
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += reinterpret_cast<const float*>(shared)[warp * kWarp + thread];
    }
    parts[block % splits * num_filters + filter] = sum;
  }
};

// Adds parts in their order.
struct SumPartsKernel {
  static constexpr int kThreads = 256;

  const int32_t* slots;  // of weights in the direct kernel's stream; null: i
  int64_t count;
  const float* parts;  // [splits, pitch]
  int64_t splits;
  int64_t pitch;
  float* sums;

  SPARSE_CONV_HOST_DEVICE void Run(int64_t block, int thread) const {
    const int64_t i = block * kThreads + thread;
    if (i >= count) return;
    const int64_t from = slots == nullptr ? i : slots[i] / 2;
    float sum = 0.0f;
    for (int64_t s = 0; s < splits; ++s) sum += parts[s * pitch + from];
    sums[i] = sum;
  }
};

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_GRAD_VALUES_INL_H_
