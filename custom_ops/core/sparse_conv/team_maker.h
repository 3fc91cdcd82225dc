// The code of a chunk of rows: teams of rows, block by block of planes.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_TEAM_MAKER_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_TEAM_MAKER_H_

#include <cstdint>
#include <vector>

#include "custom_ops/core/sparse_conv/schedule.h"

namespace sparse_conv {

// Bytes of a chunk's code, at most.
int64_t MostCodeBytes(const Program& program, const Schedule& schedule,
                      int64_t block_planes, const Chunk& chunk);

// Fills the chunk's teams, writes their code and the places of their weights to
// `order`, which is the chunk's part of the stream. Returns the code's end.
uint8_t* MakeTeams(const Program& program, const Schedule& schedule,
                   int64_t block_planes, int32_t* order, Chunk* chunk,
                   uint8_t* code);

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_TEAM_MAKER_H_
