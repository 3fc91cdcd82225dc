// Kernels on vectors, written once for all instruction sets: the includer
// defines struct Simd. No function here is called from other files (all are
// static), so that none compiled for one instruction set serves another.
//
// A list's item holds rows x vectors sums in registers while it goes through
// its entries. An entry costs one load of an offset, one broadcast per row and
// one load per vector, which is the operand of the multiply-add where there is
// one row.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_INL_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_INL_H_

#include <cstdint>
#include <utility>

#include "custom_ops/core/sparse_conv/kernels.h"

namespace sparse_conv {
namespace {

using Vector = Simd::Vector;
constexpr int kLanes = Simd::kLanes;

template <int kRows, int kVectors, bool kFirst>
void RunList(const ListCall& call) {
  const uint32_t* offset = call.offsets;
  const float* weight = call.weights;
  const float* const planes = call.planes;
  const int64_t unit = call.unit;
  for (const Item* item = call.begin; item != call.end; ++item) {
    Vector sums[kRows][kVectors];
    float* rows[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      rows[r] = call.sums + item->row[r] * call.row_stride;
      if (kFirst) {
        const Vector bias = call.bias == nullptr
                                ? Simd::Zero()
                                : Simd::Set1(call.bias[item->row[r]]);
#pragma GCC unroll 32
        for (int v = 0; v < kVectors; ++v) sums[r][v] = bias;
      } else {
#pragma GCC unroll 32
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] = Simd::Load(rows[r] + v * kLanes);
        }
      }
    }
    const uint32_t* const end = offset + item->count;
    for (; offset != end; ++offset, weight += kRows) {
      const float* x = planes + static_cast<int64_t>(*offset) * unit;
      if constexpr (kRows == 1) {
        const Vector w = Simd::Set1(*weight);
#pragma GCC unroll 32
        for (int v = 0; v < kVectors; ++v) {
          sums[0][v] = Simd::MulAdd(w, Simd::Load(x + v * kLanes), sums[0][v]);
        }
      } else {
        Vector xs[kVectors];
#pragma GCC unroll 32
        for (int v = 0; v < kVectors; ++v) xs[v] = Simd::Load(x + v * kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const Vector w = Simd::Set1(weight[r]);
#pragma GCC unroll 32
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = Simd::MulAdd(w, xs[v], sums[r][v]);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 32
      for (int v = 0; v < kVectors; ++v) {
        Simd::Store(rows[r] + v * kLanes, sums[r][v]);
      }
    }
  }
}

template <int kRows, bool kFirst, int... kVectors>
ListFunction SelectVectors(int vectors,
                           std::integer_sequence<int, kVectors...>) {
  static constexpr ListFunction kFunctions[] = {
      RunList<kRows, kVectors + 1, kFirst>...};
  return kFunctions[vectors - 1];
}

template <int kRows, int kMax>
ListFunction SelectFirst(int vectors, bool first) {
  using Sequence = std::make_integer_sequence<int, kMax>;
  return first ? SelectVectors<kRows, true>(vectors, Sequence())
               : SelectVectors<kRows, false>(vectors, Sequence());
}

ListFunction SelectList(int rows, int vectors, bool first) {
  switch (rows) {
    case 1:
      return SelectFirst<1, Simd::kMaxVectors1>(vectors, first);
    case 2:
      return SelectFirst<2, Simd::kMaxVectors2>(vectors, first);
    default:
      return SelectFirst<4, Simd::kMaxVectors4>(vectors, first);
  }
}

template <int kVectors>
void RunGrad(const ListCall& call, float* products) {
  const uint32_t* offset = call.offsets;
  for (const Item* item = call.begin; item != call.end; ++item) {
    const float* row = call.sums + item->row[0] * call.row_stride;
    Vector ys[kVectors];
#pragma GCC unroll 32
    for (int v = 0; v < kVectors; ++v) ys[v] = Simd::Load(row + v * kLanes);
    const uint32_t* const end = offset + item->count;
    for (; offset != end; ++offset, products += kLanes) {
      const float* x = call.planes + static_cast<int64_t>(*offset) * call.unit;
      // Two sums, or one would wait for itself.
      Vector even = Simd::Load(products);
      Vector odd = Simd::Zero();
#pragma GCC unroll 32
      for (int v = 0; v < kVectors; ++v) {
        Vector& sum = v % 2 == 0 ? even : odd;
        sum = Simd::MulAdd(ys[v], Simd::Load(x + v * kLanes), sum);
      }
      Simd::Store(products, Simd::Add(even, odd));
    }
  }
}

template <int... kVectors>
void SelectGrad(const ListCall& call, int vectors, float* products,
                std::integer_sequence<int, kVectors...>) {
  static constexpr void (*kFunctions[])(const ListCall&,
                                        float*) = {RunGrad<kVectors + 1>...};
  kFunctions[vectors - 1](call, products);
}

void Grad(const ListCall& call, int vectors, float* products) {
  SelectGrad(call, vectors, products,
             std::make_integer_sequence<int, Simd::kMaxVectors1>());
}

}  // namespace
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_KERNELS_INL_H_
