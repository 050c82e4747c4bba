// The checker that looks at real files.
#include "coordinator/job_checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/fakes.h"
#include "tests/coordinator/tiny_job.h"

namespace bearing::coordinator {
namespace {

using ::testing::HasSubstr;

class JobCheckerTest : public testing::Test {
 protected:
  absl::Status Check(bearing::v1::JobSpec spec) {
    return checker_->Check(&spec, [] { return absl::OkStatus(); });
  }

  TempDir dir_;
  bearing::v1::JobSpec spec_ = WriteTinyJob(dir_ / "job", "tiny");
  std::unique_ptr<JobChecker> checker_ = MakeFileJobChecker();
};

TEST_F(JobCheckerTest, AcceptsAGoodJobAndFillsItsDefaults) {
  bearing::v1::JobSpec spec = spec_;
  const absl::Status status = checker_->Check(&spec, [] { return absl::OkStatus(); });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(spec.model().dtype(), "float32");
  spec.set_ranks(2);
  EXPECT_TRUE(Check(spec).ok());
}

TEST_F(JobCheckerTest, NamesTheFieldThatIsWrong) {
  bearing::v1::JobSpec spec = spec_;
  spec.set_name("Not A Name");
  spec.mutable_select()->set_prune_layers(2);
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("name: "));
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("select.prune_layers: "));

  spec = spec_;
  spec.mutable_prompts()->mutable_positive()->mutable_train()->set_file(dir_ / "none.txt");
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("prompts.positive.train"));
}

TEST_F(JobCheckerTest, RefusesPathsThatDependOnAWorkingFolder) {
  bearing::v1::JobSpec spec = spec_;
  spec.set_output("out");
  spec.mutable_prompts()->mutable_negative()->mutable_test()->set_file("negative.txt");
  spec.mutable_model()->set_path("model");
  const absl::Status status = Check(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("output: must be an absolute path"));
  EXPECT_THAT(status.ToString(), HasSubstr("model.path: must be an absolute path"));
  EXPECT_THAT(status.ToString(), HasSubstr("prompts.negative.test.file: must be an absolute path"));
}

TEST_F(JobCheckerTest, AModelThatIsNotThereIsAWrongJobFile) {
  bearing::v1::JobSpec spec = spec_;
  spec.mutable_model()->set_path(dir_ / "none");
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("model.path: "));
}

TEST_F(JobCheckerTest, AModelThatCannotRunIsAFailedPrecondition) {
  const std::string shard = spec_.model().path() + "/model.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 2);
  EXPECT_EQ(Check(spec_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Check(spec_).ToString(), HasSubstr("model.safetensors"));
  std::ofstream(spec_.model().path() + "/config.json") << R"({"model_type": "mamba"})";
  EXPECT_EQ(Check(spec_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Check(spec_).ToString(), HasSubstr("mamba"));
}

TEST_F(JobCheckerTest, AModelWithoutAWayToTalkIsAFailedPrecondition) {
  const std::string chat_template = spec_.model().path() + "/chat_template.jinja";
  std::ofstream(chat_template) << "{{ raise_exception('no such role') }}";
  EXPECT_EQ(Check(spec_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Check(spec_).ToString(), HasSubstr("no such role"));
  std::filesystem::remove(chat_template);
  EXPECT_EQ(Check(spec_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Check(spec_).ToString(), HasSubstr("no chat template"));
}

TEST_F(JobCheckerTest, ConceptTokensMustBeTokensOfTheModel) {
  bearing::v1::JobSpec spec = spec_;
  spec.mutable_concept_spec()->add_tokens("one");
  EXPECT_TRUE(Check(spec).ok()) << Check(spec);
  spec.mutable_concept_spec()->add_tokens("one two");
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("concept.tokens: "));
  spec = spec_;
  spec.mutable_concept_spec()->add_token_ids(32);
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("concept.token_ids: "));
}

TEST_F(JobCheckerTest, RanksThatCannotCutTheModelAreRefused) {
  bearing::v1::JobSpec spec = spec_;
  spec.set_ranks(5);
  EXPECT_EQ(Check(spec).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Check(spec).ToString(), HasSubstr("ranks: "));
  EXPECT_EQ(checker_->Plan(spec_, 5).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobCheckerTest, PlansInTheDtypeThatComputes) {
  spec_.mutable_model()->set_residency("resident");
  auto wide = checker_->Plan(spec_, 2);
  ASSERT_TRUE(wide.ok()) << wide.status();
  ASSERT_EQ(wide->plan.ranks_size(), 2);
  EXPECT_EQ(wide->plan.ranks(0).heads().end(), 2);
  EXPECT_EQ(wide->plan.ranks(1).kv_heads().begin(), 1);
  // 16 rows of the embedding, 3 norms, half of every projection; two bytes an element on disk.
  const int64_t elements = 16 * 16 + 3 * 16 + 3 * 4 * 16 + (8 + 8 + 4 + 4) * 16;
  EXPECT_EQ(wide->plan.ranks(0).weight_bytes(), 2 * elements);
  EXPECT_EQ(wide->compute_bytes, (std::vector<int64_t>{4 * elements, 4 * elements}));
  bearing::v1::JobSpec narrow = spec_;
  narrow.mutable_model()->set_dtype("bfloat16");
  EXPECT_EQ(checker_->Plan(narrow, 2)->compute_bytes.front(), 2 * elements);
}

TEST_F(JobCheckerTest, StopsBetweenStepsWhenAsked) {
  int steps = 0;
  bearing::v1::JobSpec spec = spec_;
  const absl::Status status =
      checker_->Check(&spec, [&] { return ++steps == 2 ? absl::CancelledError("") : absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(steps, 2);
}

}  // namespace
}  // namespace bearing::coordinator
