// How a model is cut over tensor-parallel ranks: element ranges, uneven but near-equal, so that any size works.
//
// Attention is cut by KV group (a KV head with its query heads) while there are at least as many KV heads as ranks; else by
// query head, each rank holding a copy of the KV heads its query heads read. The MLP and every expert are cut by column, the
// vocabulary by row.
// A plan is a pure function of the config and the number of ranks. Every stored element is owned by exactly one rank: the
// lowest that holds it.
#ifndef BEARING_SHARDING_SHARD_PLAN_H_
#define BEARING_SHARDING_SHARD_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"

namespace bearing::sharding {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;  // Exclusive.
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Part `index` of `total` elements cut in `parts`: the first (total % parts) parts hold one more.
Range EvenRange(int64_t total, int64_t parts, int64_t index);

struct RankPlan {
  Range heads;               // Query heads.
  Range kv_heads;            // KV heads that these query heads read: [heads.begin / g, (heads.end - 1) / g + 1).
  Range mlp;                 // Columns of a dense MLP.
  Range expert;              // Columns of each expert of a mixture.
  Range shared_expert;       // Columns of the shared expert.
  Range vocab;               // Rows of the embedding and the unembedding.
  int64_t weight_bytes = 0;  // At the dtype of the disk.
};

struct ShardPlan {
  std::vector<RankPlan> ranks;
  int64_t tp() const { return static_cast<int64_t>(ranks.size()); }
};

// InvalidArgument when ranks < 1; FailedPrecondition when a rank would hold no query head, column or vocabulary row.
// All layers must share one attention shape, all dense MLPs one width, and all mixtures one (true of every family here).
absl::StatusOr<ShardPlan> MakeShardPlan(const ModelConfig& config, const ParamLayout& layout, int64_t ranks);

// The range of `entry` on its cut axis, in elements, that a rank with plan `rank` holds; the whole axis for kNone.
Range SliceOf(const ParamEntry& entry, const RankPlan& rank);

// Stored elements that a rank holds.
struct RankElements {
  int64_t resident = 0;  // All of them.
  // While layers are streamed: what stands before and behind the layers, and the two largest neighbours among these.
  int64_t streamed = 0;
};
RankElements CountElements(const ParamLayout& layout, const RankPlan& rank);

// Does this rank own (write back, count) the slice? False only for copies: replicated tensors on ranks > 0 and KV heads that
// a lower rank holds too (then the owned part is returned by OwnedSliceOf, possibly empty).
Range OwnedSliceOf(const ParamEntry& entry, const ShardPlan& plan, int64_t rank);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SHARD_PLAN_H_
