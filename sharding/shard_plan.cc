#include "sharding/shard_plan.h"

#include <algorithm>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

absl::Status CheckUniform(const ModelConfig& config) {
  if (config.layers.empty()) return absl::FailedPreconditionError("model has no layers");
  const LayerSpec& first = config.layers.front();
  for (size_t i = 1; i < config.layers.size(); ++i) {
    const LayerSpec& layer = config.layers[i];
    if (layer.attention.num_heads != first.attention.num_heads ||
        layer.attention.num_kv_heads != first.attention.num_kv_heads || layer.attention.head_dim != first.attention.head_dim ||
        layer.mlp.intermediate_size != first.mlp.intermediate_size) {
      return absl::FailedPreconditionError(Concat("layers differ in their attention or MLP shape: layer=", i));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEnough(std::string_view what, int64_t have, int64_t ranks) {
  if (have >= ranks) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Concat("too many ranks for the model: a rank would hold no ", what, ": ranks=", ranks, " ", what, "s=", have));
}

void CutAttention(const AttentionSpec& attention, int64_t ranks, int64_t rank, RankPlan* plan) {
  const int64_t group = attention.num_heads / attention.num_kv_heads;
  if (attention.num_kv_heads >= ranks) {
    plan->kv_heads = EvenRange(attention.num_kv_heads, ranks, rank);
    plan->heads = {plan->kv_heads.begin * group, plan->kv_heads.end * group};
  } else {
    plan->heads = EvenRange(attention.num_heads, ranks, rank);
    plan->kv_heads = {plan->heads.begin / group, (plan->heads.end - 1) / group + 1};
  }
}

// Elements of `entry` for one element on its cut axis.
int64_t ElementsPerCut(const ParamEntry& entry) {
  int64_t elements = 1;
  for (size_t axis = 0; axis < entry.shape.size(); ++axis) {
    if (static_cast<int>(axis) != entry.cut_axis) elements *= entry.shape[axis];
  }
  return elements;
}

}  // namespace

Range EvenRange(int64_t total, int64_t parts, int64_t index) {
  const int64_t base = total / parts;
  const int64_t longer = total % parts;
  const int64_t begin = index * base + std::min(index, longer);
  return {begin, begin + base + (index < longer ? 1 : 0)};
}

absl::StatusOr<ShardPlan> MakeShardPlan(const ModelConfig& config, const ParamLayout& layout, int64_t ranks) {
  if (ranks < 1) return absl::InvalidArgumentError(Concat("a plan needs at least one rank: ranks=", ranks));
  BEARING_RETURN_IF_ERROR(CheckUniform(config));
  const AttentionSpec& attention = config.layers.front().attention;
  const int64_t mlp = config.layers.front().mlp.intermediate_size;
  BEARING_RETURN_IF_ERROR(CheckEnough("attention head", attention.num_heads, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("MLP column", mlp, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("vocabulary row", config.vocab_size, ranks));

  ShardPlan plan;
  plan.ranks.resize(static_cast<size_t>(ranks));
  for (int64_t rank = 0; rank < ranks; ++rank) {
    RankPlan& part = plan.ranks[static_cast<size_t>(rank)];
    CutAttention(attention, ranks, rank, &part);
    part.mlp = EvenRange(mlp, ranks, rank);
    part.vocab = EvenRange(config.vocab_size, ranks, rank);
    for (const ParamEntry& entry : layout.entries()) {
      part.weight_bytes += SliceOf(entry, part).size() * ElementsPerCut(entry) * DTypeSize(config.dtype);
    }
  }
  return plan;
}

Range SliceOf(const ParamEntry& entry, const RankPlan& rank) {
  const auto scaled = [&entry](const Range& range) { return Range{range.begin * entry.cut_unit, range.end * entry.cut_unit}; };
  switch (entry.cut_by) {
    case CutBy::kNone:
      return {0, entry.shape[static_cast<size_t>(entry.cut_axis)]};
    case CutBy::kHeads:
      return scaled(rank.heads);
    case CutBy::kKvHeads:
      return scaled(rank.kv_heads);
    case CutBy::kMlp:
      return scaled(rank.mlp);
    case CutBy::kVocab:
      return scaled(rank.vocab);
  }
  return {};
}

Range OwnedSliceOf(const ParamEntry& entry, const ShardPlan& plan, int64_t rank) {
  Range owned = SliceOf(entry, plan.ranks[static_cast<size_t>(rank)]);
  // Ranges only grow with the rank, so what lower ranks hold is a prefix of this one.
  for (int64_t lower = 0; lower < rank; ++lower) {
    const Range held = SliceOf(entry, plan.ranks[static_cast<size_t>(lower)]);
    owned.begin = std::min(std::max(owned.begin, held.end), owned.end);
  }
  return owned;
}

}  // namespace bearing::sharding
