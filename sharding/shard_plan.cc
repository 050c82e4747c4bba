#include "sharding/shard_plan.h"

#include <algorithm>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// The widths that are cut; 0 where no layer has such a part.
struct Widths {
  AttentionSpec attention;
  int64_t mlp = 0;
  int64_t expert = 0;
  int64_t shared_expert = 0;
};

// Takes `value` of a layer over; false when another layer had another.
bool Take(int64_t value, int64_t* width) {
  if (value == 0) return true;
  if (*width != 0 && *width != value) return false;
  *width = value;
  return true;
}

absl::StatusOr<Widths> UniformWidths(const ModelConfig& config) {
  if (config.layers.empty()) return absl::FailedPreconditionError("model has no layers");
  Widths widths{.attention = config.layers.front().attention};
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const LayerSpec& layer = config.layers[i];
    const bool same = layer.attention.num_heads == widths.attention.num_heads &&
                      layer.attention.num_kv_heads == widths.attention.num_kv_heads &&
                      layer.attention.head_dim == widths.attention.head_dim && Take(layer.mlp.intermediate_size, &widths.mlp) &&
                      Take(layer.moe.expert_size, &widths.expert) && Take(layer.moe.shared_size, &widths.shared_expert);
    if (!same) return absl::FailedPreconditionError(Concat("layers differ in their attention or MLP shape: layer=", i));
  }
  return widths;
}

absl::Status CheckEnough(std::string_view what, int64_t have, int64_t ranks) {
  if (have == 0 || have >= ranks) return absl::OkStatus();
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
  BEARING_ASSIGN_OR_RETURN(const Widths widths, UniformWidths(config));
  BEARING_RETURN_IF_ERROR(CheckEnough("attention head", widths.attention.num_heads, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("MLP column", widths.mlp, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("expert column", widths.expert, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("shared expert column", widths.shared_expert, ranks));
  BEARING_RETURN_IF_ERROR(CheckEnough("vocabulary row", config.vocab_size, ranks));

  ShardPlan plan;
  plan.ranks.resize(static_cast<size_t>(ranks));
  for (int64_t rank = 0; rank < ranks; ++rank) {
    RankPlan& part = plan.ranks[static_cast<size_t>(rank)];
    CutAttention(widths.attention, ranks, rank, &part);
    part.mlp = EvenRange(widths.mlp, ranks, rank);
    part.expert = EvenRange(widths.expert, ranks, rank);
    part.shared_expert = EvenRange(widths.shared_expert, ranks, rank);
    part.vocab = EvenRange(config.vocab_size, ranks, rank);
    part.weight_bytes = CountElements(layout, part).resident * DTypeSize(config.dtype);
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
    case CutBy::kExpert:
      return scaled(rank.expert);
    case CutBy::kSharedExpert:
      return scaled(rank.shared_expert);
    case CutBy::kVocab:
      return scaled(rank.vocab);
  }
  return {};
}

RankElements CountElements(const ParamLayout& layout, const RankPlan& rank) {
  int64_t ends = 0;
  std::vector<int64_t> layers;
  for (const ParamEntry& entry : layout.entries()) {
    const int64_t elements = SliceOf(entry, rank).size() * ElementsPerCut(entry);
    if (entry.layer < 0) {
      ends += elements;
      continue;
    }
    layers.resize(std::max(layers.size(), static_cast<size_t>(entry.layer) + 1));
    layers[static_cast<size_t>(entry.layer)] += elements;
  }
  RankElements counts{.resident = ends, .streamed = 0};
  int64_t pair = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    counts.resident += layers[i];
    pair = std::max(pair, layers[i] + (layers.size() > 1 ? layers[(i + 1) % layers.size()] : 0));
  }
  counts.streamed = ends + pair;
  return counts;
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
