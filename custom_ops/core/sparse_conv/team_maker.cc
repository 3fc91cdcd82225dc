#include "custom_ops/core/sparse_conv/team_maker.h"

#include <algorithm>

namespace sparse_conv {
namespace {

int64_t CeilOfRatio(int64_t a, int64_t b) { return (a + b - 1) / b; }

class TeamMaker {
 public:
  TeamMaker(const Program& program, const Schedule& schedule,
            int64_t block_planes, int32_t* order, Chunk* chunk, uint8_t* code)
      : program_(program),
        schedule_(schedule),
        block_planes_(block_planes),
        blocks_(CeilOfRatio(program.num_planes(), block_planes)),
        block_columns_(block_planes *
                       static_cast<int64_t>(program.shifts.size())),
        order_(order),
        chunk_(chunk),
        code_(code),
        code_begin_(code) {
    // Columns are ordered by block, then by tap, then by plane.
    for (int64_t plane = 0; plane < program.num_planes(); ++plane) {
      first_columns_.push_back(static_cast<int32_t>(
          plane / block_planes * block_columns_ + plane % block_planes));
    }
  }

  uint8_t* Make() {
    std::vector<int32_t> live;
    std::vector<int32_t> dead;
    for (int64_t row = chunk_->begin; row < chunk_->end; ++row) {
      const bool empty = program_.rows[row] == program_.rows[row + 1];
      (empty ? dead : live)
          .push_back(static_cast<int32_t>(row - chunk_->begin));
    }
    // Rows without entries are their bias.
    for (const std::vector<int32_t>& members : TeamsOf(dead)) {
      Emit(members, true, 0);
    }
    std::vector<Team> teams;
    for (const std::vector<int32_t>& members : TeamsOf(live)) {
      Sort(members, &teams);
    }
    std::vector<bool> started(teams.size(), false);
    int64_t placed = 0;
    for (int64_t block = 0; block < blocks_; ++block) {
      for (size_t t = 0; t < teams.size(); ++t) {
        const int64_t count = SetColumns(teams[t], block, placed);
        if (count == 0) continue;
        Emit(teams[t].members, !started[t], placed);
        placed += count;
        started[t] = true;
      }
    }
    return code_;
  }

 private:
  // The entries of rows that are computed together, by column.
  struct Team {
    std::vector<int32_t> members;
    std::vector<int32_t> starts;  // by column, of those below
    std::vector<int32_t> indices;
    std::vector<uint8_t> rows;  // in `members`
  };

  // Teams of equal size.
  std::vector<std::vector<int32_t>> TeamsOf(
      const std::vector<int32_t>& rows) const {
    const int64_t size = static_cast<int64_t>(rows.size());
    const int64_t count = CeilOfRatio(size, schedule_.jit->rows);
    std::vector<std::vector<int32_t>> teams;
    for (int64_t t = 0; t < count; ++t) {
      teams.emplace_back(rows.begin() + size * t / count,
                         rows.begin() + size * (t + 1) / count);
    }
    return teams;
  }

  // Calls f(member, column, index) for a team's entries.
  template <typename Function>
  void Visit(const std::vector<int32_t>& members, const Function& f) const {
    for (size_t m = 0; m < members.size(); ++m) {
      const int64_t row = chunk_->begin + members[m];
      for (int64_t k = program_.rows[row]; k < program_.rows[row + 1]; ++k) {
        const Entry& entry = program_.entries[k];
        f(static_cast<uint8_t>(m),
          first_columns_[entry.plane] + entry.tap * block_planes_, entry.index);
      }
    }
  }

  void Sort(const std::vector<int32_t>& members,
            std::vector<Team>* teams) const {
    Team team;
    team.members = members;
    team.starts.assign(blocks_ * block_columns_ + 1, 0);
    Visit(members,
          [&](uint8_t, int64_t column, int32_t) { ++team.starts[column + 1]; });
    for (size_t c = 1; c < team.starts.size(); ++c) {
      team.starts[c] += team.starts[c - 1];
    }
    team.indices.resize(team.starts.back());
    team.rows.resize(team.starts.back());
    std::vector<int32_t> next(team.starts.begin(), team.starts.end() - 1);
    Visit(members, [&](uint8_t member, int64_t column, int32_t index) {
      const int32_t at = next[column]++;
      team.indices[at] = index;
      team.rows[at] = member;
    });
    teams->push_back(std::move(team));
  }

  // Sets columns_ and the order of weights from `placed` on. Returns the number
  // of entries.
  int64_t SetColumns(const Team& team, int64_t block, int64_t placed) {
    columns_.clear();
    const int64_t begin = block * block_columns_;
    for (int64_t c = 0; c < block_columns_; ++c) {
      const int32_t start = team.starts[begin + c];
      const int32_t count = team.starts[begin + c + 1] - start;
      if (count == 0) continue;
      const int64_t plane = block * block_planes_ + c % block_planes_;
      const int64_t offset =
          plane * schedule_.plane_size + program_.shifts[c / block_planes_];
      columns_.push_back(
          {offset * schedule_.unit() * static_cast<int64_t>(sizeof(float)),
           team.rows.data() + start, count});
    }
    const int32_t first = team.starts[begin];
    const int32_t last = team.starts[begin + block_columns_];
    std::copy(team.indices.begin() + first, team.indices.begin() + last,
              order_ + placed);
    return last - first;
  }

  void Emit(const std::vector<int32_t>& members, bool first, int64_t placed) {
    chunk_->teams.push_back({code_ - code_begin_, placed});
    const int64_t row_stride =
        schedule_.tile_size() * static_cast<int64_t>(sizeof(float));
    code_ =
        EmitTeam(*schedule_.jit, members, first, row_stride, columns_, code_);
  }

  const Program& program_;
  const Schedule& schedule_;
  const int64_t block_planes_;
  const int64_t blocks_;
  const int64_t block_columns_;
  int32_t* const order_;
  Chunk* const chunk_;
  uint8_t* code_;
  uint8_t* const code_begin_;
  std::vector<int32_t> first_columns_;  // by plane, of tap 0
  std::vector<TeamColumn> columns_;
};

}  // namespace

int64_t MostCodeBytes(const Program& program, const Schedule& schedule,
                      int64_t block_planes, const Chunk& chunk) {
  const int64_t blocks = CeilOfRatio(program.num_planes(), block_planes);
  const int64_t rows = chunk.end - chunk.begin;
  const int64_t teams = CeilOfRatio(rows, schedule.jit->rows) + 1;
  const int64_t nonzeros = program.rows[chunk.end] - program.rows[chunk.begin];
  const int64_t columns =
      program.num_planes() * static_cast<int64_t>(program.shifts.size());
  return MostTeamBytes(*schedule.jit, teams * (blocks + 1), rows * (blocks + 1),
                       std::min(nonzeros, teams * columns), nonzeros);
}

uint8_t* MakeTeams(const Program& program, const Schedule& schedule,
                   int64_t block_planes, int32_t* order, Chunk* chunk,
                   uint8_t* code) {
  return TeamMaker(program, schedule, block_planes, order, chunk, code).Make();
}

}  // namespace sparse_conv
