#include "worker/model/batch_view.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::model {
namespace {

// Rows of x that each group covers while x holds all tokens.
std::vector<GroupRows> RowsOfGroups(const PackedBatch& batch) {
  std::vector<GroupRows> rows;
  rows.reserve(batch.groups.size());
  for (const Group& group : batch.groups) {
    if (group.num_segments == 0) continue;
    const Segment& last = batch.segments[group.first_segment + group.num_segments - 1];
    rows.push_back({&group.intervention, batch.segments[group.first_segment].begin, last.begin + last.length});
  }
  return rows;
}

// The same in x once it holds only the tokens in `read`.
std::vector<GroupRows> OnlyRead(std::vector<GroupRows> rows, absl::Span<const int64_t> read) {
  for (GroupRows& group : rows) {
    group.begin = std::lower_bound(read.begin(), read.end(), group.begin) - read.begin();
    group.end = std::lower_bound(read.begin(), read.end(), group.end) - read.begin();
  }
  return rows;
}

// The keys that the last tokens of a segment see.
AttentionRow RowOf(const PackedBatch& batch, const Segment& segment, const KvCache* cache) {
  AttentionRow row;
  row.begin = segment.begin;
  row.num_queries = segment.length;
  const auto add = [&row](KeySource source, int64_t begin, int64_t count) {
    if (count > 0) row.spans[row.num_spans++] = {source, begin, count};
  };
  if (segment.cache_row >= 0) {
    const KvCache::Row& cached = cache->rows[segment.cache_row];
    add(KeySource::kCache, cached.prefix_begin, cached.prefix_count);
    add(KeySource::kCache, cached.own_begin, cached.own_count);
    // The token itself is stored before attention runs.
    add(KeySource::kCache, cache->NextSlot(segment.cache_row) - cached.decoded, cached.decoded + 1);
    return row;
  }
  if (segment.parent >= 0) {
    const Segment& parent = batch.segments[segment.parent];
    add(KeySource::kBatch, parent.begin, parent.length);
  }
  add(KeySource::kBatch, segment.begin, segment.length);
  return row;
}

absl::Status MarkLong(const PackedBatch& batch, const KvCache* cache, int64_t boundary, std::vector<bool>& is_long) {
  enum class Side : char { kNone, kShort, kLong };
  std::vector<Side> sides(batch.segments.size(), Side::kNone);
  std::vector<Side> of_children(batch.segments.size(), Side::kNone);  // What those that continue a segment say.
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    int64_t length = segment.first_position + segment.length;
    if (segment.cache_row >= 0) {
      const KvCache::Row& cached = cache->rows[segment.cache_row];
      length = cached.prefix_count + cached.own_count;  // A generation stays on the side of its prompt.
    }
    const Side side = length > boundary ? Side::kLong : Side::kShort;
    sides[s] = side;
    if (segment.parent < 0) continue;
    Side& of_parent = of_children[segment.parent];
    if (of_parent == Side::kNone) of_parent = side;
    if (of_parent != side) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompts on both sides of longrope's original context share a prefix: tokens=", length,
                       " original_max_position_embeddings=", boundary));
    }
  }
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    const Side side = of_children[s] != Side::kNone ? of_children[s] : sides[s];
    std::fill_n(is_long.begin() + segment.begin, segment.length, side == Side::kLong);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BatchView> MakeBatchView(const sharding::ModelConfig& config, const PackedBatch& batch,
                                        absl::Span<const int64_t> read, const KvCache* cache) {
  BatchView view;
  view.positions.resize(batch.num_tokens());
  view.is_long.resize(batch.num_tokens());
  view.read.assign(read.begin(), read.end());
  view.rows.reserve(batch.segments.size());
  size_t next_read = 0;
  for (const Segment& segment : batch.segments) {
    for (int64_t i = 0; i < segment.length; ++i) {
      view.positions[segment.begin + i] = static_cast<int32_t>(segment.first_position + i);
    }
    view.longest = std::max(view.longest, segment.first_position + segment.length);
    view.rows.push_back(RowOf(batch, segment, cache));
    if (segment.cache_row >= 0) {
      view.decoded_tokens.push_back(segment.begin);
      view.decoded_slots.push_back(cache->NextSlot(segment.cache_row));
    }
    const int64_t end = segment.begin + segment.length;
    const size_t first_read = next_read;
    while (next_read < read.size() && read[next_read] < end) ++next_read;
    if (next_read == first_read) continue;
    const auto count = static_cast<int64_t>(next_read - first_read);
    if (read[first_read] != end - count || read[next_read - 1] != end - 1) {
      return absl::InternalError(absl::StrCat("tokens that are read must end their segment: first=", read[first_read],
                                              " count=", count, " end=", end));
    }
    view.read_rows.push_back(view.rows.back());
    view.read_rows.back().begin = end - count;
    view.read_rows.back().num_queries = count;
  }
  if (view.longest > config.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt and answer are longer than the model's positions: tokens=", view.longest, " max=", config.max_positions));
  }
  if (const int64_t boundary = LongRopeBoundary(config); boundary > 0 && view.longest > boundary) {
    BEARING_RETURN_IF_ERROR(MarkLong(batch, cache, boundary, view.is_long));
  }
  if (!view.decoded_tokens.empty() && view.decoded_tokens.size() != view.rows.size()) {
    return absl::InternalError("a batch mixes decode steps with other rows");
  }
  view.groups = RowsOfGroups(batch);
  view.read_groups = OnlyRead(view.groups, read);
  return view;
}

int64_t LongRopeBoundary(const sharding::ModelConfig& config) {
  for (const sharding::RopeSpec& rope : config.ropes) {
    if (rope.scaling == sharding::RopeScaling::kLongRope) return rope.original_max_positions;
  }
  return 0;
}

}  // namespace bearing::model
