#include "worker/model/packed_batch.h"

#include <algorithm>

namespace bearing::model {

int PackedBatch::Add(absl::Span<const int32_t> tokens, int parent) {
  Segment segment;
  segment.begin = num_tokens();
  segment.length = static_cast<int64_t>(tokens.size());
  segment.parent = parent;
  if (parent >= 0) segment.first_position = segments[parent].first_position + segments[parent].length;
  token_ids.insert(token_ids.end(), tokens.begin(), tokens.end());
  segments.push_back(segment);
  if (!groups.empty()) ++groups.back().num_segments;
  return static_cast<int>(segments.size()) - 1;
}

void PackedBatch::BeginGroup(const Intervention& intervention) {
  groups.push_back(Group{static_cast<int>(segments.size()), 0, intervention});
}

std::vector<int64_t> PackedBatch::LastTokens(absl::Span<const int> which) const {
  std::vector<int64_t> last;
  last.reserve(which.size());
  for (const int index : which) last.push_back(segments[index].begin + segments[index].length - 1);
  return last;
}

int64_t SharedPrefix(absl::Span<const std::vector<int32_t>> rows, int64_t keep) {
  if (rows.size() < 2) return 0;
  int64_t shared = static_cast<int64_t>(rows[0].size());
  for (const std::vector<int32_t>& row : rows) {
    const int64_t limit = std::min(shared, static_cast<int64_t>(row.size()));
    shared = std::mismatch(row.begin(), row.begin() + limit, rows[0].begin()).first - row.begin();
    shared = std::min(shared, std::max<int64_t>(0, static_cast<int64_t>(row.size()) - keep));
  }
  return shared;
}

}  // namespace bearing::model
