// Rows of tokens, back to back, with no padding; rows may share a prefix.
//
// A segment is a run of tokens of one sequence. A segment with a parent continues the parent's sequence: it sees the keys of
// all the parent's tokens and its positions follow the parent's. So the template text that all prompts share is computed once a
// group (a group = rows under one intervention) and every prompt is a short segment behind it.
#ifndef BEARING_WORKER_MODEL_PACKED_BATCH_H_
#define BEARING_WORKER_MODEL_PACKED_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/model/intervention.h"

namespace bearing::model {

struct Segment {
  int64_t begin = 0;           // First token, as an index into the batch.
  int64_t length = 0;          // At least 1.
  int parent = -1;             // Index of an earlier segment without a parent of its own, or -1.
  int cache_row = -1;          // Row of the KvCache that this segment continues (decode steps), or -1.
  int64_t first_position = 0;  // Position (for RoPE) of its first token.
};

// Consecutive segments under one intervention.
struct Group {
  int first_segment = 0;
  int num_segments = 0;
  Intervention intervention;
};

struct PackedBatch {
  std::vector<int64_t> token_ids;  // [T]
  std::vector<Segment> segments;   // Cover [0, T) in order.
  std::vector<Group> groups;       // Cover the segments in order; none = no intervention at all.

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }

  // Appends a segment and returns its index.
  int Add(absl::Span<const int32_t> tokens, int parent = -1);

  // Opens a group: the segments added from here on belong to it.
  void BeginGroup(const Intervention& intervention);

  // Index of the last token of each segment in `which`.
  std::vector<int64_t> LastTokens(absl::Span<const int> which) const;
};

// Length of the longest prefix that all rows share, leaving at least `keep` tokens of each row. 0 for fewer than two rows.
int64_t SharedPrefix(absl::Span<const std::vector<int32_t>> rows, int64_t keep);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_PACKED_BATCH_H_
