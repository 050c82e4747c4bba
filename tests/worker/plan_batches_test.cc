// `bearing plan` knows the worker's batches by their sizes alone: both must cut alike.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "jobs/plan/batches.h"
#include "jobs/plan/cost_work.h"
#include "sharding/memory_rules.h"
#include "worker/steer/row_batches.h"
#include "worker/steer/shared_rows.h"

namespace bearing {
namespace {

// Rows of random length behind a shared prefix.
steer::Rows RandomRows(int count, int prefix, int seed) {
  std::mt19937 random(seed);
  steer::Rows rows;
  for (int r = 0; r < count; ++r) {
    std::vector<int32_t> row(prefix, 7);
    row.push_back(100 + r);
    row.insert(row.end(), random() % 20, 9);
    rows.push_back(row);
  }
  return rows;
}

jobs::PromptLengths LengthsOf(const steer::Rows& rows, int64_t shared) {
  jobs::PromptLengths lengths;
  for (const auto& row : rows) lengths.tokens.push_back(static_cast<int64_t>(row.size()));
  lengths.shared = shared;
  return lengths;
}

TEST(PlanBatchesTest, AreThoseOfTheWorker) {
  for (const int prefix : {0, 1, 30}) {
    for (const int count : {1, 2, 33}) {
      const steer::Rows rows = RandomRows(count, prefix, prefix + count);
      const jobs::PromptLengths lengths = LengthsOf(rows, prefix);
      for (const int64_t keep : {1, 5}) {
        const steer::RowBatcher batcher({}, rows, keep);
        EXPECT_EQ(lengths.Prefix(keep), batcher.prefix());
        for (const int64_t budget : {1, 64, 100000}) {
          for (const size_t max_rows : {size_t{3}, size_t{1000}}) {
            const std::vector<steer::RowRange> ranges = batcher.Cut(budget, max_rows);
            const std::vector<jobs::Batch> batches = jobs::CutBatches(lengths, keep, budget, static_cast<int64_t>(max_rows));
            ASSERT_EQ(batches.size(), ranges.size());
            for (size_t b = 0; b < ranges.size(); ++b) {
              EXPECT_EQ(batches[b].tokens, batcher.TokensOf(ranges[b]));
              EXPECT_EQ(batches[b].reads, static_cast<int64_t>(ranges[b].size()));
            }
          }
        }
      }
    }
  }
}

TEST(PlanBatchesTest, ScoredRowsAreCutAsTheWorkerCutsThem) {
  for (const int prefix : {0, 1, 30}) {
    for (const int count : {1, 2, 33}) {
      std::vector<steer::ScoredRow> rows;
      jobs::ScoredSet set;
      set.families = {{count > 1 ? prefix : 0, {}}};
      for (const std::vector<int32_t>& tokens : RandomRows(count, prefix, prefix + count)) {
        rows.push_back({tokens, prefix + 1});
        if (rows.back().num_scored() < 1) rows.back().tokens.push_back(9);
        set.families[0].rows.push_back({rows.back().num_fed(), rows.back().num_scored()});
      }
      for (const int64_t budget : {64, 300, 100000}) {
        // As ScoreTokens fills its passes.
        std::vector<std::pair<int64_t, int64_t>> want;
        for (const steer::RowFamily& family : steer::ShareRows(rows, budget, 0)) {
          if (want.empty() || want.back().first + family.tokens > budget) want.emplace_back();
          want.back().first += family.tokens;
          for (size_t r = family.rows.begin; r < family.rows.end; ++r) want.back().second += rows[r].num_scored();
        }
        std::vector<std::pair<int64_t, int64_t>> got;
        for (const jobs::ScoredBatch& pass : jobs::CutScored(set, budget)) got.push_back({pass.batch.tokens, pass.batch.reads});
        EXPECT_EQ(got, want) << prefix << " " << count << " " << budget;
      }
    }
  }
}

TEST(PlanBatchesTest, TheBudgetsThatWorkerAndPlanShare) {
  sharding::ModelConfig config;
  config.d_model = 576;
  config.layers.resize(2);
  config.layers[0].attention = {.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  config.layers[0].mlp.intermediate_size = 1536;
  config.layers[1].attention = config.layers[0].attention;
  config.layers[1].moe = {.num_experts = 8, .top_k = 2, .expert_size = 1000, .shared_size = 300};
  // The widest layer is the mixture: 4 (4 * 576 + 3 * 2300 + 2 * 15 * 64) = 44496 bytes a token.
  EXPECT_EQ(sharding::TokenBudget(config, 0), 64);
  EXPECT_EQ(sharding::TokenBudget(config, int64_t{20} << 20), 471);
  EXPECT_EQ(sharding::TokenBudget(config, int64_t{50} << 20), 1178);
  EXPECT_EQ(sharding::TokenBudget(config, int64_t{1} << 40), 4096);
  EXPECT_EQ(sharding::StreamTokens(config, 0), 4096);
  EXPECT_EQ(sharding::StreamTokens(config, int64_t{20} << 20), 9102);
  EXPECT_EQ(sharding::StreamTokens(config, int64_t{1} << 60), int64_t{1} << 22);
  EXPECT_TRUE(sharding::FitsResident(80, 100));
  EXPECT_FALSE(sharding::FitsResident(81, 100));
}

}  // namespace
}  // namespace bearing
