#include "custom_ops/core/sparse_conv/team_maker.h"

#include <algorithm>

namespace sparse_conv {
namespace {

int64_t CeilOfRatio(int64_t a, int64_t b) { return (a + b - 1) / b; }

class TeamMaker {
 public:
  TeamMaker(const Program& program, const Schedule& schedule,
            int64_t block_planes, int32_t* order, Chunk* chunk,
            std::vector<uint8_t>* code)
      : program_(program),
        schedule_(schedule),
        block_planes_(block_planes),
        blocks_(CeilOfRatio(program.num_planes(), block_planes)),
        order_(order),
        chunk_(chunk),
        code_(code) {}

  void Make() {
    std::vector<int32_t> live;
    std::vector<int32_t> dead;
    for (int64_t row = chunk_->begin; row < chunk_->end; ++row) {
      const bool empty = program_.rows[row] == program_.rows[row + 1];
      (empty ? dead : live)
          .push_back(static_cast<int32_t>(row - chunk_->begin));
    }
    // Rows without entries are their bias.
    for (const std::vector<int32_t>& members : TeamsOf(dead)) {
      Emit(members, true);
    }
    const std::vector<std::vector<int32_t>> teams = TeamsOf(live);
    std::vector<std::vector<std::vector<Place>>> places;  // by team, block
    for (const std::vector<int32_t>& members : teams) {
      places.push_back(PlacesOf(members));
    }
    std::vector<bool> started(teams.size(), false);
    for (int64_t block = 0; block < blocks_; ++block) {
      for (size_t t = 0; t < teams.size(); ++t) {
        if (places[t][block].empty()) continue;
        SetColumns(block, places[t][block]);
        Emit(teams[t], !started[t]);
        placed_ += static_cast<int64_t>(places[t][block].size());
        started[t] = true;
      }
    }
  }

 private:
  // An entry in its block.
  struct Place {
    int32_t column;
    int32_t index;
    uint8_t member;
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

  // A team's entries, by block.
  std::vector<std::vector<Place>> PlacesOf(
      const std::vector<int32_t>& members) const {
    std::vector<std::vector<Place>> places(blocks_);
    for (size_t m = 0; m < members.size(); ++m) {
      const int64_t row = chunk_->begin + members[m];
      for (int64_t k = program_.rows[row]; k < program_.rows[row + 1]; ++k) {
        const Entry& entry = program_.entries[k];
        places[entry.plane / block_planes_].push_back(
            {static_cast<int32_t>(entry.tap * block_planes_ +
                                  entry.plane % block_planes_),
             entry.index, static_cast<uint8_t>(m)});
      }
    }
    return places;
  }

  // Sorts entries by column, into columns_ and the order of weights.
  void SetColumns(int64_t block, const std::vector<Place>& places) {
    starts_.assign(block_planes_ * program_.shifts.size() + 1, 0);
    for (const Place& place : places) ++starts_[place.column + 1];
    for (size_t c = 1; c < starts_.size(); ++c) starts_[c] += starts_[c - 1];
    next_.assign(starts_.begin(), starts_.end() - 1);
    members_.resize(places.size());
    for (const Place& place : places) {
      const int32_t at = next_[place.column]++;
      members_[at] = place.member;
      order_[placed_ + at] = place.index;
    }
    columns_.clear();
    for (size_t c = 0; c + 1 < starts_.size(); ++c) {
      const int count = starts_[c + 1] - starts_[c];
      if (count == 0) continue;
      const int64_t column = static_cast<int64_t>(c);
      const int64_t plane = block * block_planes_ + column % block_planes_;
      const int64_t offset = plane * schedule_.plane_size +
                             program_.shifts[column / block_planes_];
      columns_.push_back(
          {offset * schedule_.unit() * static_cast<int64_t>(sizeof(float)),
           members_.data() + starts_[c], count});
    }
  }

  void Emit(const std::vector<int32_t>& members, bool first) {
    chunk_->teams.push_back({static_cast<int64_t>(code_->size()), placed_});
    const int64_t row_stride =
        schedule_.tile * schedule_.lanes * static_cast<int64_t>(sizeof(float));
    EmitTeam(*schedule_.jit, members, first, row_stride, columns_, code_);
  }

  const Program& program_;
  const Schedule& schedule_;
  const int64_t block_planes_;
  const int64_t blocks_;
  int32_t* const order_;
  Chunk* const chunk_;
  std::vector<uint8_t>* const code_;
  int64_t placed_ = 0;
  std::vector<int32_t> starts_;
  std::vector<int32_t> next_;
  std::vector<uint8_t> members_;
  std::vector<TeamColumn> columns_;
};

}  // namespace

void MakeTeams(const Program& program, const Schedule& schedule,
               int64_t block_planes, int32_t* order, Chunk* chunk,
               std::vector<uint8_t>* code) {
  TeamMaker(program, schedule, block_planes, order, chunk, code).Make();
}

}  // namespace sparse_conv
