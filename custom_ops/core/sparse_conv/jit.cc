#include "custom_ops/core/sparse_conv/jit.h"

#include "custom_ops/core/sparse_conv/emitter.h"

namespace sparse_conv {
namespace {

void Call(const uint8_t* code, const float* planes, const float* weights,
          float* sums, const float* bias) {
  reinterpret_cast<TeamFunction>(reinterpret_cast<uintptr_t>(code))(
      planes, weights, sums, bias);
}

// Weights, whose addresses stay within a short displacement.
class Weights {
 public:
  explicit Weights(bool wide, Emitter* emitter)
      : least_(wide ? -128 * 4 : -128),
        most_(wide ? 127 * 4 : 124),
        emitter_(emitter) {}

  // Displacement of the next weight from rsi.
  int32_t Next() {
    if (next_ > most_) {
      emitter_->Add(kRsi, next_ - least_);
      next_ = least_;
    }
    const int32_t bytes = next_;
    next_ += 4;
    return bytes;
  }

 private:
  const int32_t least_;
  const int32_t most_;
  Emitter* const emitter_;
  int32_t next_ = 0;
};

}  // namespace

// 28 sums and 4 registers that columns take turns in; 12 sums, a weight and 3
// vectors of a column.
const JitTarget kAvx512Jit = {true, 16, 28, 1, Call};
const JitTarget kAvx2Jit = {false, 8, 6, 2, Call};

uint8_t* EmitTeam(const JitTarget& target, const std::vector<int32_t>& rows,
                  bool first, int64_t row_stride,
                  const std::vector<TeamColumn>& columns, uint8_t* code) {
  Emitter emitter(target.wide, code);
  const int vectors = target.vectors;
  const int32_t vector_bytes = target.lanes * 4;
  const int num_rows = static_cast<int>(rows.size());
  const auto sum = [&](int row, int v) { return row * vectors + v; };
  for (int row = 0; row < num_rows; ++row) {
    for (int v = 0; v < vectors; ++v) {
      if (first) {
        emitter.Broadcast(sum(row, v), kRcx, rows[row] * 4);
      } else {
        emitter.Load(
            sum(row, v), kRdx,
            static_cast<int32_t>(rows[row] * row_stride + v * vector_bytes));
      }
    }
  }
  Weights weights(target.wide, &emitter);
  const int first_free = target.rows * vectors;
  const int last = target.wide ? 32 : 16;
  // With AVX2 the weight has the last register.
  const int weight = last - 1;
  const int num_free = last - first_free - (target.wide ? 0 : 1);
  int turn = 0;
  for (const TeamColumn& column : columns) {
    int xs[4];
    for (int v = 0; v < vectors; ++v) {
      xs[v] = first_free + turn;
      turn = (turn + 1) % num_free;
      emitter.Load(xs[v], kRdi,
                   static_cast<int32_t>(column.offset + v * vector_bytes));
    }
    for (int k = 0; k < column.count; ++k) {
      const int row = column.rows[k];
      if (target.wide && vectors == 1) {
        emitter.MulAddBroadcast(sum(row, 0), xs[0], kRsi, weights.Next());
        continue;
      }
      emitter.Broadcast(weight, kRsi, weights.Next());
      for (int v = 0; v < vectors; ++v) {
        emitter.MulAdd(sum(row, v), xs[v], weight);
      }
    }
  }
  for (int row = 0; row < num_rows; ++row) {
    for (int v = 0; v < vectors; ++v) {
      emitter.Store(
          sum(row, v), kRdx,
          static_cast<int32_t>(rows[row] * row_stride + v * vector_bytes));
    }
  }
  emitter.Return();
  return emitter.at();
}

int64_t MostTeamBytes(const JitTarget& target, int64_t teams, int64_t rows,
                      int64_t columns, int64_t nonzeros) {
  // Each row is loaded and stored; a non-zero has a broadcast of its own, and
  // every 256th, or 64th, moves the stream on.
  const int64_t bytes = Emitter::kMostBytes;
  const int64_t moves = nonzeros / (target.wide ? 255 : 63) + teams;
  const int64_t products =
      target.wide && target.vectors == 1 ? 7 : bytes + 5 * target.vectors;
  return (2 * rows + columns) * target.vectors * bytes + moves * 7 +
         nonzeros * products + teams * 4 + Emitter::kSlack;
}

}  // namespace sparse_conv
