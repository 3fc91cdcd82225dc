// The stream of a set: its weights cut into chunks, and written as records.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_WRITER_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_WRITER_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "custom_ops/core/sparse_conv/sparse_conv_cuda_build.h"

namespace sparse_conv {
namespace cuda {

inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A weight as its set sees it.
struct Entry {
  int32_t channel;  // of the unit: the first
  int32_t unit_y;   // from the smallest dy and dx of the problem
  int32_t unit_x;
  int32_t part;  // channel within the unit
  int32_t shift_y;
  int32_t shift_x;
  int32_t list;
  int32_t filter;  // of the list
  int32_t index;

  auto Key() const {
    return std::tie(channel, unit_y, unit_x, part, shift_y, shift_x, list,
                    filter);
  }
  bool SameUnit(const Entry& other) const {
    return channel == other.channel && unit_y == other.unit_y &&
           unit_x == other.unit_x;
  }
  bool SameColumn(const Entry& other) const {
    return SameUnit(other) && part == other.part && shift_y == other.shift_y &&
           shift_x == other.shift_x;
  }
};

// The entries [begin, end) of one list in one column.
struct ListColumn {
  int32_t offset;
  size_t begin;
  size_t end;
};

// Writes the chunks of sets, one after the other.
class Writer {
 public:
  Writer(const Variant& variant, const Part& part, int32_t least_y,
         int32_t least_x, Tables* tables)
      : variant_(variant),
        part_(part),
        least_y_(least_y),
        least_x_(least_x),
        lists_(NumLists(variant.kind, variant.tile_filters)),
        record_bytes_(RecordBytes(variant.kind, variant.tile_filters)),
        record_columns_(variant.kind == kDirect ? 1
                        : variant.kind == kTf32 ? Fragment<kTf32>::kColumns
                                                : Fragment<kBf16>::kColumns),
        tables_(tables) {}

  // Entries in ascending order. False where the stream gets too long.
  bool WriteSet(const std::vector<Entry>& entries, const Set* sets, Set* set) {
    entries_ = &entries;
    set_ = static_cast<int32_t>(set - sets);
    set->first_chunk = static_cast<int32_t>(tables_->chunks.size());
    for (size_t begin = 0; begin < entries.size();) {
      size_t end = begin;
      while (end < entries.size() && entries[end].SameUnit(entries[begin])) {
        ++end;
      }
      // A unit begins a new chunk rather than lie in two, if it can.
      if (num_units_ > 0 &&
          (num_units_ == 1 << part_.log2_units || !Fits(begin, end))) {
        Flush();
      }
      AddUnit(begin, end);
      begin = end;
    }
    if (num_units_ > 0) Flush();
    set->num_chunks =
        static_cast<int32_t>(tables_->chunks.size()) - set->first_chunk;
    return tables_->stream.size() / 16 <
               static_cast<size_t>(std::numeric_limits<int32_t>::max()) &&
           tables_->stream.size() / WeightBytes() <
               static_cast<size_t>(std::numeric_limits<int32_t>::max());
  }

  int64_t num_records() const { return num_records_; }
  int64_t num_unit_copies() const { return num_unit_copies_; }

 private:
  size_t WeightBytes() const { return variant_.kind == kBf16 ? 2 : 4; }

  // Calls add(list, begin, end) for every list of every column.
  template <typename Add>
  void ForColumns(size_t begin, size_t end, const Add& add) const {
    const std::vector<Entry>& entries = *entries_;
    for (size_t i = begin; i < end;) {
      size_t j = i + 1;
      while (j < end && entries[j].list == entries[i].list &&
             entries[j].SameColumn(entries[i])) {
        ++j;
      }
      add(entries[i].list, i, j);
      i = j;
    }
  }

  // Whether the chunk has room for these entries too.
  bool Fits(size_t begin, size_t end) const {
    int64_t counts[kFilters];
    for (size_t l = 0; l < lists_.size(); ++l) {
      counts[l] = static_cast<int64_t>(lists_[l].size());
    }
    ForColumns(begin, end, [&](int list, size_t, size_t) { ++counts[list]; });
    int64_t bytes = BoundsBytes(static_cast<int>(lists_.size())) +
                    4 * int64_t{part_.patch_floats};
    for (size_t l = 0; l < lists_.size(); ++l) {
      bytes += DivideUp(counts[l], record_columns_) * record_bytes_;
    }
    return DivideUp(bytes, 16) * 16 <= kStageBytes;
  }

  void AddUnit(size_t begin, size_t end) {
    const std::vector<Entry>& entries = *entries_;
    BeginUnit(entries[begin]);
    for (size_t i = begin; i < end;) {
      size_t j = i + 1;
      while (j < end && entries[j].SameColumn(entries[i])) ++j;
      if (!Fits(i, j)) {
        Flush();
        BeginUnit(entries[begin]);
      }
      const Entry& entry = entries[i];
      const int32_t offset =
          (num_units_ - 1) * part_.unit_pitch + entry.part +
          (entry.shift_y * part_.cols + entry.shift_x) * part_.pixel_pitch;
      ForColumns(i, j, [&](int list, size_t first, size_t last) {
        lists_[list].push_back({offset, first, last});
      });
      i = j;
    }
  }

  void BeginUnit(const Entry& entry) {
    ++num_units_;
    ++num_unit_copies_;
    tables_->units.push_back(
        {entry.channel, least_y_ + entry.unit_y, least_x_ + entry.unit_x});
  }

  void Flush() {
    std::vector<char>& stream = tables_->stream;
    const size_t first = stream.size();
    const int num_lists = static_cast<int>(lists_.size());
    const size_t first_record = first + BoundsBytes(num_lists);
    stream.resize(first_record);
    int32_t bound = 0;
    for (int l = 0; l < num_lists; ++l) {
      WriteList(l);
      bound =
          static_cast<int32_t>((stream.size() - first_record) / record_bytes_);
      std::memcpy(&stream[first + 4 * (l + 1)], &bound, 4);
      lists_[l].clear();
    }
    num_records_ += bound;
    stream.resize(DivideUp(static_cast<int64_t>(stream.size()), 16) * 16);
    tables_->chunks.push_back(
        {static_cast<int32_t>(tables_->units.size()) - num_units_, num_units_,
         static_cast<int32_t>(first / 16),
         static_cast<int32_t>((stream.size() - first) / 16), set_});
    num_units_ = 0;
  }

  void WriteList(int list) {
    std::vector<ListColumn>& columns = lists_[list];
    if (variant_.kind != kDirect) SpreadBanks(&columns);
    for (size_t i = 0; i < columns.size(); i += record_columns_) {
      const size_t record = tables_->stream.size();
      tables_->stream.resize(record + record_bytes_);
      for (int slot = 0; slot < record_columns_; ++slot) {
        // A short record repeats its last column, with weights of 0.
        const size_t c = std::min(i + slot, columns.size() - 1);
        const ListColumn& column = columns[c];
        std::memcpy(&tables_->stream[record + 4 * slot], &column.offset, 4);
        if (c != i + slot) continue;
        for (size_t k = column.begin; k < column.end; ++k) {
          const Entry& entry = (*entries_)[k];
          const int byte = variant_.kind == kDirect ? 4
                           : variant_.kind == kTf32
                               ? WeightByte<kTf32>(slot, entry.filter)
                               : WeightByte<kBf16>(slot, entry.filter);
          tables_->slots[entry.index] =
              static_cast<int32_t>((record + byte) / WeightBytes());
        }
      }
    }
  }

  // Four lanes read four columns of 8 neighbouring pixels at a time: their
  // banks differ best where offsets do by 8, or by 1 where pixels do by 4.
  void SpreadBanks(std::vector<ListColumn>* columns) const {
    constexpr int kClasses = 4;
    const int width = part_.pixel_pitch == 1 ? 8 : 1;
    std::vector<ListColumn> classes[kClasses];
    for (const ListColumn& column : *columns) {
      classes[column.offset / width % kClasses].push_back(column);
    }
    const int slots_of_lane = record_columns_ / 4;
    const size_t size = columns->size();
    columns->clear();
    size_t next[kClasses] = {};
    // Slots in the order of the instruction's reads: all lanes' first slots,
    // then all their second ones.
    std::vector<ListColumn> record;
    while (columns->size() < size) {
      record.clear();
      const size_t count =
          std::min<size_t>(record_columns_, size - columns->size());
      for (size_t i = 0; i < count; ++i) {
        int best = static_cast<int>(i % kClasses);
        for (int j = 0; next[best] == classes[best].size(); ++j) best = j;
        record.push_back(classes[best][next[best]++]);
      }
      if (static_cast<int>(count) < record_columns_) {
        columns->insert(columns->end(), record.begin(), record.end());
        break;
      }
      for (int lane = 0; lane < 4; ++lane) {
        for (int i = 0; i < slots_of_lane; ++i) {
          columns->push_back(record[i * 4 + lane]);
        }
      }
    }
  }

  const Variant variant_;
  const Part& part_;
  const int32_t least_y_;
  const int32_t least_x_;
  std::vector<std::vector<ListColumn>> lists_;
  const int record_bytes_;
  const int record_columns_;
  Tables* const tables_;
  const std::vector<Entry>* entries_ = nullptr;
  int32_t set_ = 0;
  int num_units_ = 0;
  int64_t num_records_ = 0;
  int64_t num_unit_copies_ = 0;
};

}  // namespace cuda
}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_SPARSE_CONV_CUDA_WRITER_H_
