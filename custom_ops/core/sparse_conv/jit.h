// Code for a team of rows and a block of planes.
//
// The sums of a team's rows, for one or a few vectors of pixels, stay in
// registers while the code goes through the team's columns: it loads a column's
// vectors once, and each non-zero in it is a multiply-add with a broadcast
// weight. Positions are in the code, weights are read as a stream: new weights
// need no new code.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_JIT_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_JIT_H_

#include <cstdint>
#include <vector>

namespace sparse_conv {

// Sums of a team, on `vectors` vectors from each of the pointers on. `bias` is
// that of the chunk's rows.
using TeamFunction = void (*)(const float* planes, const float* weights,
                              float* sums, const float* bias);

// What code is made for.
struct JitTarget {
  bool wide;    // zmm, or ymm
  int lanes;    // of a register
  int rows;     // of a team, at most
  int vectors;  // of a call
  // Runs code; a test without the instruction set interprets it.
  void (*call)(const uint8_t* code, const float* planes, const float* weights,
               float* sums, const float* bias);
};

extern const JitTarget kAvx2Jit;
extern const JitTarget kAvx512Jit;

// Non-zeros of one column of a team, by row of the team.
struct TeamColumn {
  int64_t offset;  // bytes from `planes`
  const uint8_t* rows;
  int count;
};

// Writes a TeamFunction and returns its end. `rows` are the team's rows in the
// chunk, row_stride the bytes from row to row of sums. `first`: sums begin from
// the bias.
uint8_t* EmitTeam(const JitTarget& target, const std::vector<int32_t>& rows,
                  bool first, int64_t row_stride,
                  const std::vector<TeamColumn>& columns, uint8_t* code);

// Bytes of `teams` of these together, at most, and behind them.
int64_t MostTeamBytes(const JitTarget& target, int64_t teams, int64_t rows,
                      int64_t columns, int64_t nonzeros);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_JIT_H_
