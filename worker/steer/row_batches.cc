#include "worker/steer/row_batches.h"

#include <algorithm>

#include "worker/model/batch_view.h"

namespace bearing::steer {

namespace {

bool OnBothSides(const Rows& rows, int64_t boundary) {
  const auto is_long = [boundary](const std::vector<int32_t>& row) { return static_cast<int64_t>(row.size()) > boundary; };
  return boundary > 0 && std::any_of(rows.begin(), rows.end(), is_long) && !std::all_of(rows.begin(), rows.end(), is_long);
}

}  // namespace

RowBatcher::RowBatcher(const sharding::ModelConfig& config, const Rows& rows, int64_t keep)
    : rows_(rows), prefix_(OnBothSides(rows, model::LongRopeBoundary(config)) ? 0 : model::SharedPrefix(rows, keep)) {}

int64_t RowBatcher::TokensOf(RowRange range) const {
  int64_t tokens = prefix_;
  for (size_t r = range.begin; r < range.end; ++r) tokens += static_cast<int64_t>(rows_[r].size()) - prefix_;
  return tokens;
}

std::vector<RowRange> RowBatcher::Cut(int64_t budget, size_t max_rows) const {
  return Cut({0, rows_.size()}, budget, max_rows);
}

std::vector<RowRange> RowBatcher::Cut(RowRange part, int64_t budget, size_t max_rows) const {
  std::vector<RowRange> ranges;
  int64_t tokens = 0;
  for (size_t r = part.begin; r < part.end; ++r) {
    const int64_t own = static_cast<int64_t>(rows_[r].size()) - prefix_;
    if (ranges.empty() || tokens + own > budget || ranges.back().size() == max_rows) {
      ranges.push_back({r, r});
      tokens = prefix_;
    }
    tokens += own;
    ranges.back().end = r + 1;
  }
  return ranges;
}

void RowBatcher::AppendGroup(RowRange range, const model::Intervention& intervention, model::PackedBatch& batch,
                             std::vector<int>& segments, std::vector<int64_t>& read) const {
  batch.BeginGroup(intervention);
  int parent = -1;
  if (prefix_ > 0) parent = batch.Add(absl::MakeConstSpan(rows_[range.begin]).subspan(0, prefix_));
  for (size_t r = range.begin; r < range.end; ++r) {
    segments.push_back(batch.Add(absl::MakeConstSpan(rows_[r]).subspan(prefix_), parent));
    read.push_back(batch.num_tokens() - 1);
  }
}

}  // namespace bearing::steer
