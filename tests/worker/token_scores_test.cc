// Log-likelihoods and KL of many tokens in shared batches, against one plain forward a token.
#include "worker/steer/token_scores.h"

#include <ATen/ATen.h>

#include "sharding/status_macros.h"
#include "tests/worker/tiny_model.h"

namespace bearing::steer {
namespace {

using bearing::testing::Layout;
using bearing::testing::OnAten;
using bearing::testing::ReadTensors;
using bearing::testing::RowsOf;
using bearing::testing::RunTinyTrace;
using bearing::testing::TinyPath;
using bearing::testing::TraceResult;
using bearing::testing::WithDecoder;
using bearing::testing::WithReplicas;

ScoredRow Row(std::vector<int32_t> tokens, int64_t first) { return {std::move(tokens), first}; }

TEST(ShareRowsTest, EachQuestionHasAPrefixOfItsOwn) {
  // A template of 2 tokens, two questions with 3 choices each; what is read starts at the question's last token.
  std::vector<ScoredRow> rows;
  for (const int32_t question : {10, 20}) {
    for (const int32_t choice : {1, 2, 3}) {
      rows.push_back(Row({7, 8, question, question + 1, question + 2, question + 3, choice, choice}, 6));
    }
  }
  const auto families = ShareRows(rows, 1000, 0);
  ASSERT_EQ(families.size(), 2u);
  EXPECT_EQ(families[0].rows.end, 3u);
  EXPECT_EQ(families[0].prefix, 5);
  EXPECT_EQ(families[0].tokens, 5 + 3 * 2) << "of 7 that are fed, 2 are each choice's own";
  EXPECT_EQ(families[1].tokens, 11);

  model::PackedBatch batch;
  std::vector<int64_t> read;
  batch.BeginGroup({});
  for (const RowFamily& family : families) AppendFamily(rows, family, batch, read);
  EXPECT_EQ(batch.num_tokens(), 22);
  EXPECT_EQ(read, (std::vector<int64_t>{5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21}));
  EXPECT_EQ(batch.segments[1].parent, 0);
  EXPECT_EQ(batch.segments[1].first_position, 5);
}

TEST(ShareRowsTest, ALongTemplateIsWorthMoreThanTheQuestions) {
  std::vector<ScoredRow> rows;
  for (const int32_t question : {10, 20}) {
    for (const int32_t choice : {1, 2}) {
      std::vector<int32_t> tokens(50, 7);
      for (const int32_t token : {question, choice, choice}) tokens.push_back(token);
      rows.push_back(Row(tokens, 51));
    }
  }
  const auto families = ShareRows(rows, 1000, 0);
  ASSERT_EQ(families.size(), 1u);
  EXPECT_EQ(families[0].prefix, 50);
  EXPECT_EQ(families[0].tokens, 50 + 4 * 2);
  EXPECT_EQ(ShareRows(rows, 55, 0).size(), 2u) << "cut by the budget";
  EXPECT_EQ(ShareRows(rows, 1, 0).size(), 4u) << "a row always fits";
}

TEST(ShareRowsTest, WhatIsReadIsNeverShared) {
  const auto whole = ShareRows(std::vector<ScoredRow>{Row({1, 2, 3}, 1), Row({1, 2, 3}, 1)}, 1000, 0);
  ASSERT_EQ(whole.size(), 2u);
  EXPECT_EQ(whole[0].prefix, 0);
  EXPECT_EQ(whole[0].tokens, 2);
  // On both sides of longrope's boundary keys are rotated in two ways.
  const std::vector<ScoredRow> rows = {Row({1, 2, 3, 4}, 3), Row({1, 2, 3, 4, 5, 6, 7}, 3)};
  EXPECT_EQ(ShareRows(rows, 1000, 0).size(), 1u);
  EXPECT_EQ(ShareRows(rows, 1000, 4).size(), 2u);
}

struct Expected {
  std::vector<std::vector<double>> log_likelihood;   // [I][R]
  std::vector<std::vector<std::vector<double>>> kl;  // [I][R][K]
};

// Each scored token by a forward of its own, all of the logits on one rank, in fp64.
Expected Plain(const std::string& model, const std::vector<ScoredRow>& rows,
               const std::vector<model::Intervention>& interventions, int64_t kl_tokens) {
  Expected expected;
  const absl::Status status = WithDecoder(TinyPath(model), 1, at::kFloat, [&](model::Decoder& decoder) -> absl::Status {
    std::vector<std::vector<at::Tensor>> base(rows.size());
    for (size_t i = 0; i < interventions.size(); ++i) {
      expected.log_likelihood.emplace_back(rows.size());
      expected.kl.emplace_back(rows.size(), std::vector<double>(static_cast<size_t>(kl_tokens)));
      for (size_t r = 0; r < rows.size(); ++r) {
        for (int64_t t = rows[r].first; t < static_cast<int64_t>(rows[r].tokens.size()); ++t) {
          TraceResult trace;
          const Rows before = {{rows[r].tokens.begin(), rows[r].tokens.begin() + t}};
          BEARING_RETURN_IF_ERROR(RunTinyTrace(decoder, before, interventions[i], /*share_prefix=*/false, trace));
          const at::Tensor log_p = at::log_softmax(trace.logits.to(at::kDouble), 1)[0];
          expected.log_likelihood[i][r] += log_p[rows[r].tokens[static_cast<size_t>(t)]].item<double>();
          const int64_t index = t - rows[r].first;
          if (i == 0) base[r].push_back(log_p);
          if (i == 0 || index >= kl_tokens) continue;
          const at::Tensor& of_base = base[r][static_cast<size_t>(index)];
          expected.kl[i][r][static_cast<size_t>(index)] = at::sum(at::exp(of_base) * (of_base - log_p)).item<double>();
        }
      }
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return expected;
}

class TokenScoresTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenScoresTest, EqualsOneForwardAToken) {
  const std::string model = GetParam();
  const Rows prompts = RowsOf(ReadTensors(TinyPath("traces/" + model + ".plain.safetensors")));
  std::vector<ScoredRow> rows;
  for (size_t r = 0; r < prompts.size(); ++r) {
    rows.push_back(Row(prompts[r], r == 1 ? 1 : static_cast<int64_t>(prompts[r].size()) - 1 - static_cast<int64_t>(r % 4)));
    // A second answer to the same question.
    rows.push_back(rows.back());
    rows.back().tokens.back() = (rows.back().tokens.back() + 5) % 200;
  }
  std::vector<model::Intervention> interventions(3);
  int64_t d_model = 0;
  ASSERT_TRUE(WithDecoder(TinyPath(model), 1, at::kFloat, [&](model::Decoder& decoder) {
                d_model = decoder.config().d_model;
                return absl::OkStatus();
              }).ok());
  at::manual_seed(3);
  const at::Tensor unit = at::randn({d_model});
  interventions[1].ablate_basis = (unit / at::norm(unit)).unsqueeze(0);
  interventions[2].add = unit.contiguous();
  interventions[2].add_layer = 1;
  constexpr int64_t kKl = 2;
  const Expected expected = Plain(model, rows, interventions, kKl);

  constexpr auto kStreamed = model::Residency::kStreamed;
  for (const Layout layout : {Layout{1, 1}, Layout{2, 2}, Layout{2, 1}, Layout{3, 1}, Layout{4, 2}, Layout{2, 2, kStreamed, 60},
                              OnAten({1, 1}), OnAten({2, 2})}) {
    for (const int64_t budget : {int64_t{30}, int64_t{4096}}) {
      const auto body = [&](Replicas& replicas) -> absl::Status {
        TokenScoreOptions options;
        options.budget = budget;
        options.kl_tokens = kKl;
        options.logit_elements = budget == 30 ? 1 : 1 << 20;  // One read at a time, or all.
        BEARING_ASSIGN_OR_RETURN(const TokenScores found, ScoreTokens(replicas, rows, interventions, options));
        for (size_t i = 0; i < interventions.size(); ++i) {
          for (size_t r = 0; r < rows.size(); ++r) {
            const double want = expected.log_likelihood[i][r];
            const auto at_i = static_cast<int64_t>(i), at_r = static_cast<int64_t>(r);
            EXPECT_NEAR(found.log_likelihood_IR[at_i][at_r].item<double>(), want, 2e-5 * std::abs(want) + 1e-5)
                << i << " " << r;
            for (int64_t k = 0; k < kKl; ++k) {
              const double kl = expected.kl[i][r][static_cast<size_t>(k)];
              EXPECT_NEAR(found.kl_IRK[at_i][at_r][k].item<double>(), kl, 1e-4 * kl + 2e-6) << i << " " << r << " " << k;
            }
          }
        }
        return absl::OkStatus();
      };
      const absl::Status status = WithReplicas(TinyPath(model), layout, body);
      ASSERT_TRUE(status.ok()) << status << " ranks=" << layout.ranks << " budget=" << budget;
    }
  }
  double largest_kl = 0;
  for (const auto& rows_of_one : expected.kl) {
    for (const auto& row : rows_of_one) largest_kl = std::max(largest_kl, *std::max_element(row.begin(), row.end()));
  }
  EXPECT_GT(largest_kl, 1e-2) << "the interventions change nothing";
}

INSTANTIATE_TEST_SUITE_P(Models, TokenScoresTest, ::testing::Values("llama-tied", "gemma2-softcap", "mistral-window"));

TEST(TokenScoresTest, NothingToScoreAndWrongRows) {
  const absl::Status status = WithReplicas(TinyPath("llama-tied"), {2, 1}, [](Replicas& replicas) -> absl::Status {
    const std::vector<model::Intervention> one(1);
    BEARING_ASSIGN_OR_RETURN(const TokenScores none, ScoreTokens(replicas, {}, one, {}));
    EXPECT_EQ(none.log_likelihood_IR.numel(), 0);
    EXPECT_FALSE(ScoreTokens(replicas, std::vector<ScoredRow>{Row({1, 2}, 0)}, one, {}).ok());
    EXPECT_FALSE(ScoreTokens(replicas, std::vector<ScoredRow>{Row({1, 2}, 2)}, one, {}).ok());
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(DecoderTest, TokensThatAreReadMustEndTheirSegment) {
  const absl::Status status = WithDecoder(TinyPath("llama-tied"), 1, at::kFloat, [](model::Decoder& decoder) -> absl::Status {
    model::PackedBatch batch;
    batch.Add(std::vector<int32_t>{1, 2, 3});
    EXPECT_TRUE(decoder.Run(batch, {1, 2}, {}).ok());
    EXPECT_FALSE(decoder.Run(batch, {0, 2}, {}).ok());
    EXPECT_FALSE(decoder.Run(batch, {0, 1}, {}).ok());
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace bearing::steer
