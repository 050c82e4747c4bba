#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "jobs/job_spec.h"
#include "jobs/plan/workload.h"
#include "tests/jobs/plan_fixture.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WorkloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* side : {"positive", "negative"}) {
      bearing::v1::PromptSide& prompts =
          *(side[0] == 'p' ? spec_.mutable_prompts()->mutable_positive() : spec_.mutable_prompts()->mutable_negative());
      for (auto* set : {prompts.mutable_train(), prompts.mutable_validation(), prompts.mutable_test()}) {
        set->set_file(folder_.Write("p" + std::to_string(files_++) + ".txt", "four\nsixteen letters!\n"));
      }
    }
    ApplyDefaults(spec_);
  }

  TemporaryFolder folder_;
  bearing::v1::JobSpec spec_;
  int files_ = 0;
  sharding::ModelConfig config_ = LoadPlanModel("SmolLM2-135M").config;  // 30 layers.
};

TEST_F(WorkloadTest, WithoutATokenizerTokensAreGuessedAndSaidSo) {
  const auto load = MakeWorkload(spec_, config_, nullptr, {});
  ASSERT_TRUE(load.ok()) << load.status().ToString();
  EXPECT_TRUE(load->estimated);
  EXPECT_THAT(load->how, HasSubstr("estimated"));
  // 20 in front, 4 or 16 letters, 5 behind.
  EXPECT_THAT(load->positive.train.tokens, ElementsAre(26, 29));
  EXPECT_EQ(load->positive.train.shared, 20);
  EXPECT_EQ(load->positions, 5);
  spec_.mutable_prompts()->set_system("eight ch");
  EXPECT_THAT(MakeWorkload(spec_, config_, nullptr, {})->negative.test.tokens, ElementsAre(28, 31));
}

TEST_F(WorkloadTest, CostsAreCountedAsTheWorkerRunsThem) {
  spec_.mutable_evaluate()->set_max_new_tokens(10);
  bearing::v1::Costs& costs = *spec_.mutable_costs();
  costs.set_addition(true);
  costs.mutable_completions()->set_side("both");
  costs.add_texts()->set_file(folder_.Write("t.txt", std::string(40, 'x') + "\n" + std::string(400, 'x') + "\nx\n"));
  costs.mutable_texts(0)->set_max_tokens(30);
  costs.add_choices()->set_file(folder_.Write("c.jsonl",
                                              R"({"question": "eight ch", "choices": ["abc", "12345678901"], "answer": 0})"
                                              "\n"));
  costs.add_answers()->set_file(folder_.Write("a.jsonl", R"({"question": "1 + 1 is?", "answer": 2})"
                                                         "\n"));
  ApplyDefaults(spec_);
  const auto load = MakeWorkload(spec_, config_, nullptr, {});
  ASSERT_TRUE(load.ok()) << load.status().ToString();
  EXPECT_EQ(load->costs.interventions, 3);
  ASSERT_EQ(load->costs.scored.size(), 4u);
  const CountedFamily& own = load->costs.scored[0].families.at(0);  // 26 and 29 tokens, and ten new ones.
  EXPECT_EQ(own.prefix, 20);
  EXPECT_EQ(own.rows.at(1).fed, 38);
  EXPECT_EQ(own.rows.at(1).scored, 10);
  EXPECT_EQ(load->costs.scored[0].kl_tokens, 16);
  const std::vector<CountedFamily>& texts = load->costs.scored[2].families;
  ASSERT_EQ(texts.size(), 2u) << "nothing stands before the only token of the third";
  EXPECT_EQ(texts[0].rows[0].fed, 9);
  EXPECT_EQ(texts[1].rows[0].fed, 29);
  const CountedFamily& question = load->costs.scored[3].families.at(0);
  EXPECT_EQ(question.prefix, 1);
  EXPECT_EQ(question.rows.at(0).scored, 1);
  EXPECT_EQ(question.rows.at(1).scored, 3);
  EXPECT_EQ(load->costs.generated.at(0).max_new_tokens, 256);
  spec_.mutable_costs()->set_skip(true);
  EXPECT_TRUE(MakeWorkload(spec_, config_, nullptr, {})->costs.empty());
}

TEST_F(WorkloadTest, AJudgeWhoseModelIsNotThereIsNamed) {
  bearing::v1::Judge& judge = *spec_.add_judges();
  judge.mutable_model()->set_path(folder_.path() + "/none");
  judge.mutable_model()->set_preset("llama-guard");
  ApplyDefaults(spec_);
  EXPECT_THAT(std::string(MakeWorkload(spec_, config_, nullptr, {}).status().message()), HasSubstr("none"));
}

TEST_F(WorkloadTest, CandidatesAreThoseThatAreScored) {
  const auto load = MakeWorkload(spec_, config_, nullptr, {});
  // Layers 1 to 23 of 30: the last fifth is pruned, and layer 0 has no difference.
  EXPECT_EQ(load->num_candidates(), 23 * 5);
  EXPECT_EQ(load->to_kl, 17);      // 0.15 of 115.
  EXPECT_EQ(load->to_bypass, 12);  // 0.7 of 17.
  EXPECT_EQ(WorstCase(*load).to_bypass, 23 * 5);
  spec_.mutable_select()->set_complete(true);
  const auto complete = MakeWorkload(spec_, config_, nullptr, {});
  EXPECT_EQ(complete->num_candidates(), 29 * 5);
  EXPECT_EQ(complete->to_kl, 29 * 5);
  spec_.mutable_select()->add_layers(3);
  spec_.mutable_select()->add_positions(-1);
  EXPECT_EQ(MakeWorkload(spec_, config_, nullptr, {})->num_candidates(), 1);
}

TEST_F(WorkloadTest, TheLastCandidateIsNeverRoundedAway) {
  WorkloadOptions options;
  options.shares = {0.0, 0.0};
  const auto load = MakeWorkload(spec_, config_, nullptr, options);
  EXPECT_EQ(load->to_kl, 1);
  EXPECT_EQ(load->to_bypass, 1);
}

TEST_F(WorkloadTest, SkippedStagesNeedNoPrompts) {
  spec_.mutable_evaluate()->set_skip(true);
  spec_.mutable_prompts()->mutable_positive()->mutable_test()->set_file("/nowhere.txt");
  const auto load = MakeWorkload(spec_, config_, nullptr, {});
  ASSERT_TRUE(load.ok()) << load.status().ToString();
  EXPECT_EQ(load->max_new_tokens, 0);
  EXPECT_EQ(load->positive.test.count(), 0);
}

TEST_F(WorkloadTest, AMissingPromptFileIsNamed) {
  spec_.mutable_prompts()->mutable_negative()->mutable_train()->set_file("/nowhere.txt");
  EXPECT_THAT(std::string(MakeWorkload(spec_, config_, nullptr, {}).status().message()), HasSubstr("/nowhere.txt"));
}

TEST(BatchesTest, TheSharedPrefixLeavesWhatIsRead) {
  const PromptLengths prompts{{30, 26, 40}, 25};
  EXPECT_EQ(prompts.Prefix(1), 25);
  EXPECT_EQ(prompts.Prefix(5), 21);
  EXPECT_EQ(prompts.Prefix(100), 0);
  EXPECT_EQ((PromptLengths{{30}, 25}).Prefix(1), 0);
}

TEST(BatchesTest, GroupsFillThePassesAndLoseNothing) {
  const PromptLengths prompts{{30, 30, 30, 30}, 20};
  const std::vector<Batch> ranges = CutBatches(prompts, 1, 1000);
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].tokens, 20 + 4 * 10);
  EXPECT_DOUBLE_EQ(ranges[0].pairs, 20.0 * 20 + 4 * 10 * 30);
  EXPECT_DOUBLE_EQ(ranges[0].read_pairs, 4 * 30);
  const std::vector<Batch> passes = PackGroups(ranges, 5, 130);
  ASSERT_EQ(passes.size(), 3u);
  EXPECT_EQ(passes[0].tokens, 120);
  EXPECT_EQ(std::accumulate(passes.begin(), passes.end(), int64_t{0},
                            [](int64_t sum, const Batch& batch) { return sum + batch.reads; }),
            5 * 4);
}

}  // namespace
}  // namespace bearing::jobs
