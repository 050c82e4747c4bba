// The selection rule on tables recorded by the reference implementation.
#include <gtest/gtest.h>

#include <string>

#include "jobs/selection.h"
#include "tests/jobs/selection_table.h"

namespace bearing::jobs {
namespace {

struct Golden {
  const char* table;
  size_t considered;
  size_t kept;
  int first_pruned_layer;
  double savings;  // Passes for all scores over passes with cheap tests first.
};

class SelectionGoldenTest : public testing::TestWithParam<Golden> {
 protected:
  SelectionTable table_ = LoadSelectionTable(GetParam().table);
  SelectionRule rule_ = [this] {
    SelectionRule rule;
    rule.num_layers = table_.num_layers;
    return rule;
  }();
};

TEST_P(SelectionGoldenTest, PicksTheRecordedDirection) {
  const Selection selection = Select(table_.candidates, rule_);
  ASSERT_TRUE(selection.selected.has_value());
  const Candidate& chosen = table_.candidates[*selection.selected];
  EXPECT_EQ(chosen.position, table_.selected.first);
  EXPECT_EQ(chosen.layer, table_.selected.second);
  EXPECT_EQ(selection.considered, GetParam().considered);
  EXPECT_EQ(rule_.first_pruned_layer(), GetParam().first_pruned_layer);
}

TEST_P(SelectionGoldenTest, KeepsTheRecordedCandidates) {
  std::set<std::pair<int, int>> kept;
  for (const Candidate& candidate : table_.candidates) {
    if (Classify(candidate, rule_) == Discard::kNone) kept.emplace(candidate.position, candidate.layer);
  }
  EXPECT_EQ(kept, table_.kept);
  EXPECT_EQ(kept.size(), GetParam().kept);
}

TEST_P(SelectionGoldenTest, TheTableIsTheWholeGrid) {
  const std::vector<Candidate> grid = CandidateGrid(table_.num_positions, table_.num_layers, {}, {});
  ASSERT_EQ(grid.size(), table_.candidates.size());
  for (size_t i = 0; i < grid.size(); ++i) {
    EXPECT_EQ(grid[i].position, table_.candidates[i].position);
    EXPECT_EQ(grid[i].layer, table_.candidates[i].layer);
  }
}

// Induce costs the layers above the addition, KL and bypass a pass each; a candidate stops at its first failure. Scoring
// everything takes three passes a candidate.
TEST_P(SelectionGoldenTest, CheapTestsFirstPickTheSameForAFractionOfTheWork) {
  double passes = 0;
  std::vector<Candidate> measured = table_.candidates;
  for (Candidate& candidate : measured) {
    const Candidate full = candidate;
    candidate.induce.reset();
    candidate.kl.reset();
    candidate.bypass.reset();
    if (Classify(candidate, rule_) != Discard::kNotScored) continue;
    passes += 1 - static_cast<double>(candidate.layer) / table_.num_layers;
    candidate.induce = full.induce;
    if (Classify(candidate, rule_) != Discard::kNotScored) continue;
    passes += 1;
    candidate.kl = full.kl;
    if (Classify(candidate, rule_) != Discard::kNotScored) continue;
    passes += 1;
    candidate.bypass = full.bypass;
  }
  EXPECT_EQ(Select(measured, rule_).selected, Select(table_.candidates, rule_).selected);
  EXPECT_EQ(Select(measured, rule_).kept, GetParam().kept);
  const double savings = 3.0 * static_cast<double>(table_.candidates.size()) / passes;
  RecordProperty("savings", std::to_string(savings));
  EXPECT_NEAR(savings, GetParam().savings, 0.01);
}

INSTANTIATE_TEST_SUITE_P(Recorded, SelectionGoldenTest,
                         testing::Values(Golden{"gemma_2b_it", 90, 13, 14, 4.05}, Golden{"yi_6b_chat", 192, 7, 25, 5.30}),
                         [](const auto& info) { return std::string(info.param.table); });

// Of the other three recorded models only the sizes are known: the grid has as many candidates as were considered, and the
// chosen layer is one that the rule allows.
TEST(SelectionGoldenCountsTest, GridsOfTheOtherRecordedModels) {
  struct Recorded {
    const char* model;
    int positions, layers, considered, chosen_layer;
  };
  for (const Recorded& recorded : {Recorded{"llama-2-7b-chat", 6, 32, 192, 14}, Recorded{"llama-3-8b-instruct", 5, 32, 160, 12},
                                   Recorded{"qwen-1_8b-chat", 5, 24, 120, 15}}) {
    EXPECT_EQ(CandidateGrid(recorded.positions, recorded.layers, {}, {}).size(), static_cast<size_t>(recorded.considered))
        << recorded.model;
    SelectionRule rule;
    rule.num_layers = recorded.layers;
    EXPECT_LT(recorded.chosen_layer, rule.first_pruned_layer()) << recorded.model;
  }
}

}  // namespace
}  // namespace bearing::jobs
