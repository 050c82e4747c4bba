#include "sharding/shard_plan.h"

#include <tuple>
#include <vector>

#include "sharding/concat.h"
#include "tests/sharding/status_testing.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::Succeeds;

struct Sizes {
  int64_t heads;
  int64_t kv_heads;
  int64_t mlp;
  int64_t vocab;
};

ModelConfig MakeConfig(const Sizes& sizes) {
  LayerSpec layer;
  layer.attention = {
      .num_heads = sizes.heads, .num_kv_heads = sizes.kv_heads, .head_dim = 4, .qkv_bias = true, .o_bias = true, .scale = 0.5};
  layer.mlp = {.intermediate_size = sizes.mlp, .activation = Activation::kSilu, .bias = true};
  ModelConfig config;
  config.d_model = 8;
  config.vocab_size = sizes.vocab;
  config.layers.assign(2, layer);
  return config;
}

TEST(ShardPlanTest, EvenRangeIsNearEqual) {
  EXPECT_EQ(EvenRange(10, 3, 0), (Range{0, 4}));
  EXPECT_EQ(EvenRange(10, 3, 1), (Range{4, 7}));
  EXPECT_EQ(EvenRange(10, 3, 2), (Range{7, 10}));
  EXPECT_EQ(EvenRange(2, 3, 2), (Range{2, 2}));
}

// SmolLM2-135M: 9 heads read 3 KV heads.
TEST(ShardPlanTest, NineHeadsOverTwoRanks) {
  const ModelConfig config = MakeConfig({9, 3, 1536, 49152});
  const auto plan = MakeShardPlan(config, ParamLayout::FromConfig(config), 2);
  ASSERT_TRUE(Succeeds(plan));
  EXPECT_EQ(plan->ranks[0].kv_heads, (Range{0, 2}));
  EXPECT_EQ(plan->ranks[0].heads, (Range{0, 6}));
  EXPECT_EQ(plan->ranks[1].kv_heads, (Range{2, 3}));
  EXPECT_EQ(plan->ranks[1].heads, (Range{6, 9}));
  EXPECT_EQ(plan->ranks[0].mlp, (Range{0, 768}));
  EXPECT_EQ(plan->ranks[1].vocab, (Range{24576, 49152}));
}

TEST(ShardPlanTest, NineHeadsOverFourRanksCopyKvHeads) {
  const ModelConfig config = MakeConfig({9, 3, 1536, 49152});
  const ParamLayout layout = ParamLayout::FromConfig(config);
  const auto plan = MakeShardPlan(config, layout, 4);
  ASSERT_TRUE(Succeeds(plan));
  const std::vector<Range> heads = {{0, 3}, {3, 5}, {5, 7}, {7, 9}};
  const std::vector<Range> kv_heads = {{0, 1}, {1, 2}, {1, 3}, {2, 3}};
  const std::vector<Range> owned_rows = {{0, 4}, {4, 8}, {8, 12}, {12, 12}};
  const ParamEntry& key = *layout.Find(ParamRole::kKey, 0);
  for (int64_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(plan->ranks[static_cast<size_t>(rank)].heads, heads[static_cast<size_t>(rank)]) << rank;
    EXPECT_EQ(plan->ranks[static_cast<size_t>(rank)].kv_heads, kv_heads[static_cast<size_t>(rank)]) << rank;
    EXPECT_EQ(OwnedSliceOf(key, *plan, rank), owned_rows[static_cast<size_t>(rank)]) << rank;
  }
}

TEST(ShardPlanTest, SlicesAreInElementsOfTheCutAxis) {
  const ModelConfig config = MakeConfig({6, 3, 10, 11});
  const ParamLayout layout = ParamLayout::FromConfig(config);
  const auto plan = MakeShardPlan(config, layout, 2);
  ASSERT_TRUE(Succeeds(plan));
  const RankPlan& second = plan->ranks[1];
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kQuery, 1), second), (Range{16, 24}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kAttentionOut, 1), second), (Range{16, 24}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kValueBias, 1), second), (Range{8, 12}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kDown, 1), second), (Range{5, 10}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kEmbedding), second), (Range{6, 11}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kFinalNorm), second), (Range{0, 8}));
  EXPECT_EQ(OwnedSliceOf(*layout.Find(ParamRole::kFinalNorm), *plan, 1).size(), 0);
}

TEST(ShardPlanTest, WeightBytesOfOneRankAreTheCheckpoint) {
  const ModelConfig config = MakeConfig({6, 3, 10, 11});
  const ParamLayout layout = ParamLayout::FromConfig(config);
  int64_t elements = 0;
  for (const ParamEntry& entry : layout.entries()) {
    int64_t product = 1;
    for (const int64_t axis : entry.shape) product *= axis;
    elements += product;
  }
  EXPECT_EQ(MakeShardPlan(config, layout, 1)->ranks[0].weight_bytes, elements * 2);
}

TEST(ShardPlanTest, RefusesWhatCannotBeCut) {
  const ModelConfig config = MakeConfig({4, 2, 3, 5});
  const ParamLayout layout = ParamLayout::FromConfig(config);
  EXPECT_TRUE(Fails(MakeShardPlan(config, layout, 0), absl::StatusCode::kInvalidArgument, "ranks=0"));
  EXPECT_TRUE(Fails(MakeShardPlan(config, layout, -1), absl::StatusCode::kInvalidArgument, "ranks=-1"));
  EXPECT_TRUE(Fails(MakeShardPlan(config, layout, 4), absl::StatusCode::kFailedPrecondition, "MLP column", "ranks=4"));
  EXPECT_TRUE(Fails(MakeShardPlan(config, layout, 5), absl::StatusCode::kFailedPrecondition, "attention head"));
  const ModelConfig small_vocab = MakeConfig({4, 2, 9, 3});
  EXPECT_TRUE(Fails(MakeShardPlan(small_vocab, ParamLayout::FromConfig(small_vocab), 4), absl::StatusCode::kFailedPrecondition,
                    "vocabulary row"));
  ModelConfig mixed = config;
  mixed.layers[1].mlp.intermediate_size = 4;
  EXPECT_TRUE(Fails(MakeShardPlan(mixed, ParamLayout::FromConfig(mixed), 1), absl::StatusCode::kFailedPrecondition, "layer=1"));
}

// ---- Properties that hold for every model and every number of ranks.

class ShardPlanTestProperties : public ::testing::TestWithParam<std::tuple<Sizes, int64_t>> {};

std::vector<Sizes> ManySizes() {
  std::vector<Sizes> sizes;
  for (const auto& [heads, kv_heads] : std::vector<std::pair<int64_t, int64_t>>{
           {9, 3}, {14, 2}, {32, 8}, {12, 2}, {16, 16}, {8, 1}, {40, 8}, {71, 1}, {28, 4}, {15, 5}, {64, 8}}) {
    for (const int64_t mlp : {64, 101, 1536}) sizes.push_back({heads, kv_heads, mlp, mlp % 2 == 0 ? 97 : 128});
  }
  return sizes;
}

TEST_P(ShardPlanTestProperties, HoldForEveryTensor) {
  const auto& [sizes, ranks] = GetParam();
  const ModelConfig config = MakeConfig(sizes);
  const ParamLayout layout = ParamLayout::FromConfig(config);
  const auto plan = MakeShardPlan(config, layout, ranks);
  if (ranks > sizes.heads) {
    EXPECT_TRUE(Fails(plan, absl::StatusCode::kFailedPrecondition));
    return;
  }
  ASSERT_TRUE(Succeeds(plan));
  ASSERT_EQ(plan->tp(), ranks);
  const int64_t group = sizes.heads / sizes.kv_heads;
  for (const RankPlan& rank : plan->ranks) {
    EXPECT_GT(rank.heads.size(), 0);
    EXPECT_EQ(rank.kv_heads, (Range{rank.heads.begin / group, (rank.heads.end - 1) / group + 1}));
    const int64_t unit = sizes.kv_heads >= ranks ? group : 1;
    EXPECT_LT(std::abs(rank.heads.size() * ranks - sizes.heads), unit * ranks);
    EXPECT_LT(std::abs(rank.mlp.size() * ranks - sizes.mlp), ranks);
    EXPECT_LT(std::abs(rank.vocab.size() * ranks - sizes.vocab), ranks);
  }
  for (const ParamEntry& entry : layout.entries()) {
    const int64_t length = entry.shape[static_cast<size_t>(entry.cut_axis)];
    std::vector<int> holders(static_cast<size_t>(length), 0);
    std::vector<int64_t> owner(static_cast<size_t>(length), -1);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const Range held = SliceOf(entry, plan->ranks[static_cast<size_t>(rank)]);
      const Range owned = OwnedSliceOf(entry, *plan, rank);
      ASSERT_GE(held.begin, 0);
      ASSERT_LE(held.end, length);
      for (int64_t i = owned.begin; i < owned.end; ++i) {
        EXPECT_EQ(owner[static_cast<size_t>(i)], -1) << entry.name << " is owned twice";
        EXPECT_EQ(holders[static_cast<size_t>(i)], 0) << entry.name << " is not owned by the lowest rank";
        owner[static_cast<size_t>(i)] = rank;
      }
      for (int64_t i = held.begin; i < held.end; ++i) ++holders[static_cast<size_t>(i)];
    }
    for (int64_t i = 0; i < length; ++i) {
      ASSERT_GE(owner[static_cast<size_t>(i)], 0) << entry.name << " has an element without owner";
      const bool may_be_copied = entry.cut_by == CutBy::kNone || (entry.cut_by == CutBy::kKvHeads && sizes.kv_heads < ranks);
      ASSERT_TRUE(may_be_copied || holders[static_cast<size_t>(i)] == 1) << entry.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ShardPlanTestProperties,
                         ::testing::Combine(::testing::ValuesIn(ManySizes()), ::testing::Values(1, 2, 3, 4, 5, 7, 8, 16)),
                         [](const auto& info) {
                           const Sizes& sizes = std::get<0>(info.param);
                           return Concat("heads", sizes.heads, "kv", sizes.kv_heads, "mlp", sizes.mlp, "ranks",
                                         std::get<1>(info.param));
                         });

}  // namespace
}  // namespace bearing::sharding
