#include "jobs/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace bearing::jobs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Candidate Make(int position, int layer, double bypass, double induce, double kl) {
  Candidate candidate;
  candidate.position = position;
  candidate.layer = layer;
  candidate.norm = 1;
  candidate.bypass = bypass;
  candidate.induce = induce;
  candidate.kl = kl;
  return candidate;
}

SelectionRule RuleFor(int64_t num_layers) {
  SelectionRule rule;
  rule.num_layers = num_layers;
  return rule;
}

TEST(SelectionTest, PrunesTheLayersOfTheReference) {
  EXPECT_EQ(RuleFor(80).first_pruned_layer(), 64);
  EXPECT_EQ(RuleFor(32).first_pruned_layer(), 25);
  EXPECT_EQ(RuleFor(24).first_pruned_layer(), 19);
  EXPECT_EQ(RuleFor(18).first_pruned_layer(), 14);
  SelectionRule all = RuleFor(18);
  all.prune_layers = 0;
  EXPECT_EQ(all.first_pruned_layer(), 18);
}

TEST(SelectionTest, ClassifiesInTheOrderOfTheTests) {
  const SelectionRule rule = RuleFor(10);
  Candidate candidate = Make(-1, 9, kNan, -1, 1);
  candidate.norm = 0;
  EXPECT_EQ(Classify(candidate, rule), Discard::kZeroNorm);
  candidate.norm = 1;
  EXPECT_EQ(Classify(candidate, rule), Discard::kNotANumber);
  candidate.bypass = -5;
  EXPECT_EQ(Classify(candidate, rule), Discard::kPrunedLayer);
  candidate.layer = 7;
  EXPECT_EQ(Classify(candidate, rule), Discard::kInduce);
  candidate.induce = 1;
  EXPECT_EQ(Classify(candidate, rule), Discard::kKl);
  candidate.kl = 0.05;
  EXPECT_EQ(Classify(candidate, rule), Discard::kNone);
  candidate.bypass.reset();
  EXPECT_EQ(Classify(candidate, rule), Discard::kNotScored);
}

TEST(SelectionTest, ThresholdsThemselvesPass) {
  EXPECT_EQ(Classify(Make(-1, 0, -1, 0.0, 0.1), RuleFor(10)), Discard::kNone);
  EXPECT_EQ(Classify(Make(-1, 8, -1, 0.0, 0.1), RuleFor(10)), Discard::kPrunedLayer);
}

TEST(SelectionTest, NamesAreStable) {
  EXPECT_STREQ(DiscardName(Discard::kNone), "");
  EXPECT_STREQ(DiscardName(Discard::kZeroNorm), "zero_norm");
  EXPECT_STREQ(DiscardName(Discard::kNotANumber), "nan");
  EXPECT_STREQ(DiscardName(Discard::kPrunedLayer), "pruned_layer");
  EXPECT_STREQ(DiscardName(Discard::kInduce), "induce");
  EXPECT_STREQ(DiscardName(Discard::kKl), "kl");
  EXPECT_STREQ(DiscardName(Discard::kNotScored), "not_scored");
}

TEST(SelectionTest, TakesTheSmallestBypassAndCountsTheRest) {
  const std::vector<Candidate> candidates = {Make(-2, 1, -9, -1, 0.01), Make(-2, 2, -3, 1, 0.01), Make(-1, 1, -4, 1, 0.02),
                                             Make(-1, 2, -8, 1, 0.3)};
  const Selection selection = Select(candidates, RuleFor(10));
  EXPECT_EQ(selection.selected, 2u);
  EXPECT_EQ(selection.considered, 4u);
  EXPECT_EQ(selection.kept, 2u);
  EXPECT_THAT(selection.discarded, ElementsAre(Pair("induce", 1), Pair("kl", 1)));
}

TEST(SelectionTest, TiesGoToTheSmallestPositionThenLayerInAnyOrder) {
  std::vector<Candidate> candidates = {Make(-1, 1, -4, 1, 0), Make(-2, 5, -4, 1, 0), Make(-2, 3, -4, 1, 0)};
  EXPECT_EQ(Select(candidates, RuleFor(10)).selected, 2u);
  std::swap(candidates[0], candidates[2]);
  EXPECT_EQ(Select(candidates, RuleFor(10)).selected, 0u);
}

TEST(SelectionTest, AnInfiniteScoreIsNeverChosen) {
  const std::vector<Candidate> candidates = {Make(-1, 1, -std::numeric_limits<double>::infinity(), 1, 0),
                                             Make(-1, 2, -4, 1, 0)};
  EXPECT_EQ(Select(candidates, RuleFor(10)).selected, 1u);
}

TEST(SelectionTest, NoneSelectedSaysHowNearTheBestCame) {
  Candidate stopped = Make(-3, 4, 0, -0.5, 0);
  stopped.kl.reset();
  stopped.bypass.reset();
  const std::vector<Candidate> candidates = {
      Make(-2, 1, -9, 1, 0.5),  Make(-2, 2, -9, 1, 0.1337), Make(-1, 3, -9, -2, 0.05), stopped,
      Make(-1, 9, -9, 1, 0.05), Make(-1, 8, -9, 1, 0.05),   Make(-1, 4, -9, -0.1, 0.7)};
  const std::string text = ExplainNoneSelected(candidates, RuleFor(10));
  EXPECT_THAT(text, HasSubstr("considered=7 discarded=3 by induce, 2 by kl, 2 by pruned_layer."));
  EXPECT_THAT(text,
              HasSubstr("layer 2, position -2 has KL 0.1337, select.kl_max is 0.1; select.kl_max: 0.14 would let it through"));
  EXPECT_THAT(text, HasSubstr("layer 4, position -3 has induce -0.5, select.induce_min is 0 (KL and bypass not scored); "
                              "select.induce_min: -0.5 would let it through"));
  EXPECT_THAT(
      text, HasSubstr("layer 8, position -1, select.prune_layers 0.2 leaves out layers from 8 on; select.prune_layers: 0.1 "));
  EXPECT_THAT(text, HasSubstr("select.when_none_passes"));
}

TEST(SelectionTest, TheSettingsThatTheExplanationNamesWork) {
  SelectionRule rule = RuleFor(10);
  const std::vector<Candidate> by_kl = {Make(-2, 2, -9, 1, 0.1337)};
  rule.kl_max = 0.14;
  EXPECT_TRUE(Select(by_kl, rule).selected.has_value());
  const std::vector<Candidate> by_layer = {Make(-1, 8, -9, 1, 0.05)};
  rule.prune_layers = 0.1;
  EXPECT_TRUE(Select(by_layer, rule).selected.has_value());
}

TEST(SelectionTest, ACandidateThatFailsTwoTestsIsNotCalledNear) {
  EXPECT_THAT(ExplainNoneSelected({Make(-1, 1, -9, -1, 0.5)}, RuleFor(10)), Not(HasSubstr("Nearest")));
  EXPECT_THAT(ExplainNoneSelected({}, RuleFor(10)), HasSubstr("considered=0 discarded=none"));
}

TEST(SelectionTest, TheGridIsInTableOrder) {
  const std::vector<Candidate> grid = CandidateGrid(2, 3, {}, {});
  std::vector<std::pair<int, int>> places;
  for (const Candidate& candidate : grid) places.emplace_back(candidate.position, candidate.layer);
  EXPECT_THAT(places, ElementsAre(Pair(-2, 0), Pair(-2, 1), Pair(-2, 2), Pair(-1, 0), Pair(-1, 1), Pair(-1, 2)));
}

TEST(SelectionTest, TheGridCanBeRestricted) {
  const std::vector<Candidate> grid = CandidateGrid(5, 30, {-1, -3, -9}, {7, 40, 2});
  std::vector<std::pair<int, int>> places;
  for (const Candidate& candidate : grid) places.emplace_back(candidate.position, candidate.layer);
  EXPECT_THAT(places, ElementsAre(Pair(-3, 2), Pair(-3, 7), Pair(-1, 2), Pair(-1, 7)));
}

}  // namespace
}  // namespace bearing::jobs
