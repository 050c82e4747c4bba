// Scores of trials against one forward pass for each trial and prompt, in every layout.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/worker/tiny_model.h"
#include "worker/steer/concept_metric.h"
#include "worker/steer/search/trial_scores.h"

namespace bearing::steer {
namespace {

using testing::Layout;
using testing::OnAten;
using testing::ReadTensors;
using testing::RowsOf;
using testing::RunTinyTrace;
using testing::TinyPath;
using testing::TraceResult;
using testing::WithDecoder;
using testing::WithReplicas;

constexpr char kModel[] = "llama-tied";
const std::vector<int32_t> kTokens = {7, 40, 100};

Rows AllRows() { return RowsOf(ReadTensors(TinyPath(std::string("traces/") + kModel + ".plain.safetensors"))); }

std::vector<model::Intervention> Trials(const sharding::ModelConfig& config) {
  std::vector<model::Intervention> trials(5);
  at::manual_seed(5);
  for (size_t t = 1; t < trials.size(); ++t) {
    const at::Tensor vector = at::randn({config.d_model});
    trials[t].ablate_basis = (vector / at::norm(vector)).unsqueeze(0);
    trials[t].strengths = at::rand({1 + 2 * config.num_layers()}) * 1.5;
  }
  return trials;
}

// By the definitions, from whole rows of logits.
TrialScore Plain(model::Decoder& decoder, const Rows& positive, const Rows& negative, const model::Intervention& trial) {
  TrialScore score;
  TraceResult trace, before;
  EXPECT_TRUE(RunTinyTrace(decoder, positive, trial, false, trace).ok());
  const at::Tensor p = at::softmax(trace.logits.to(at::kDouble), 1);
  for (int64_t r = 0; r < p.size(0); ++r) {
    double sum = 0;
    for (const int32_t token : kTokens) sum += p[r][token].item<double>();
    score.probability += sum / static_cast<double>(p.size(0));
    score.metric += (std::log(sum + 1e-8) - std::log(1 - sum + 1e-8)) / static_cast<double>(p.size(0));
  }
  EXPECT_TRUE(RunTinyTrace(decoder, negative, {}, false, before).ok());
  EXPECT_TRUE(RunTinyTrace(decoder, negative, trial, false, trace).ok());
  const at::Tensor a = at::softmax(before.logits.to(at::kDouble), 1);
  const at::Tensor b = at::softmax(trace.logits.to(at::kDouble), 1);
  score.kl = at::mean(at::sum(a * (at::log(a + 1e-6) - at::log(b + 1e-6)), {1})).item<double>();
  return score;
}

void ExpectNear(const TrialScore& got, const TrialScore& want) {
  EXPECT_NEAR(got.probability, want.probability, 1e-5);
  EXPECT_NEAR(got.metric, want.metric, 1e-4);
  EXPECT_NEAR(got.kl, want.kl, 1e-5);
}

TEST(TrialScorerTest, EqualsOnePassATrialInEveryLayout) {
  const Rows rows = AllRows();
  ASSERT_GE(rows.size(), 4u);
  const Rows positive(rows.begin(), rows.end());
  const Rows negative(rows.begin() + 1, rows.end());
  std::vector<TrialScore> want;
  std::vector<model::Intervention> trials;  // Drawn once: threads share the generator.
  ASSERT_TRUE(WithDecoder(TinyPath(kModel), 1, at::kFloat, [&](model::Decoder& decoder) {
                trials = Trials(decoder.config());
                for (const auto& trial : trials) want.push_back(Plain(decoder, positive, negative, trial));
                return absl::OkStatus();
              }).ok());
  for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{2, 1}, Layout{2, 2, model::Residency::kStreamed}, Layout{4, 2},
                              OnAten({1, 1}), OnAten({2, 2})}) {
    // A screen of two prompts, of all of them, and passes of few and of many tokens.
    for (const int64_t screen : {2, 100}) {
      for (const int64_t budget : {64, 4096}) {
        const absl::Status status = WithReplicas(TinyPath(kModel), layout, [&](Replicas& replicas) -> absl::Status {
          TrialScorer scorer(replicas, positive, negative, screen, kTokens, budget);
          BEARING_ASSIGN_OR_RETURN(const TrialScore baseline, scorer.RunBaseline());
          ExpectNear(baseline, want[0]);
          EXPECT_EQ(baseline.positives, static_cast<int64_t>(positive.size()));
          BEARING_ASSIGN_OR_RETURN(const std::vector<TrialScore> screened, scorer.Screen(trials));
          EXPECT_EQ(screened[0].positives, std::min<int64_t>(screen, static_cast<int64_t>(positive.size())));
          BEARING_ASSIGN_OR_RETURN(const std::vector<TrialScore> scores, scorer.Complete(trials, screened));
          for (size_t t = 0; t < trials.size(); ++t) {
            EXPECT_EQ(scores[t].positives, static_cast<int64_t>(positive.size()));
            EXPECT_EQ(scores[t].negatives, static_cast<int64_t>(negative.size()));
            ExpectNear(scores[t], want[t]);
          }
          EXPECT_GT(scores[1].kl, 1e-4) << "the trial does nothing";
          BEARING_ASSIGN_OR_RETURN(const std::vector<TrialScore> none, scorer.Screen({}));
          EXPECT_TRUE(none.empty());
          return absl::OkStatus();
        });
        EXPECT_TRUE(status.ok()) << status << " ranks=" << layout.ranks << " screen=" << screen << " budget=" << budget;
      }
    }
  }
}

}  // namespace
}  // namespace bearing::steer
