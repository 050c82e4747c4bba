#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "jobs/artifacts.h"
#include "jobs/job_spec.h"
#include "tests/jobs/job_folder.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> Lines(const JobSpec& spec) {
  std::vector<std::string> lines;
  for (const FieldViolation& violation : ValidateFiles(spec)) lines.push_back(violation.field + ": " + violation.message);
  return lines;
}

TEST(JobSpecFilesTest, PathsAreResolvedAgainstTheFolderOfTheFile) {
  const JobFolder job;
  const auto spec = LoadJobFile(job.folder().PathOf("jobs/job.yaml"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prompts().positive().train().file(), job.folder().PathOf("jobs/p_train.json"));
  EXPECT_EQ(spec->model().path(), job.folder().PathOf("jobs/models/demo"));
  EXPECT_EQ(spec->model().chat_template(), "");
  EXPECT_EQ(spec->output(), (std::filesystem::current_path() / "out/refusal").string()) << "against the current folder";
}

TEST(JobSpecFilesTest, AbsolutePathsStayAndUnsetOnesStayUnset) {
  const TemporaryFolder folder;
  const auto spec =
      LoadJobFile(folder.Write("a.json", R"({"apiVersion": "bearing/v1", "kind": "Job", "model": {"path": "/m/x"}})"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model().path(), "/m/x");
  EXPECT_FALSE(spec->has_prompts());
  EXPECT_EQ(spec->output(), "");
}

TEST(JobSpecFilesTest, AMissingJobFileIsNotFound) {
  const auto spec = LoadJobFile("/nowhere/job.yaml");
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("/nowhere/job.yaml"));
}

TEST(JobSpecFilesTest, GoodFilesHaveNoViolations) {
  const JobFolder job;
  EXPECT_THAT(Lines(job.Load()), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(job.folder().PathOf("out"))) << "a check must not make the folder";
}

TEST(JobSpecFilesTest, EveryBadPromptFileIsNamedAtOnce) {
  const JobFolder job;
  std::filesystem::remove(job.folder().PathOf("jobs/p_val.json"));
  job.folder().Write("jobs/n_train.json", "[]");
  job.folder().Write("jobs/n_test.json", "[\"x\"");
  const std::vector<std::string> lines = Lines(job.Load());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0], HasSubstr("prompts.positive.validation.file: "));
  EXPECT_THAT(lines[0], HasSubstr("p_val.json"));
  EXPECT_EQ(lines[1], "prompts.negative.train.file: " + job.folder().PathOf("jobs/n_train.json") + ": the file has no prompts");
  EXPECT_EQ(lines[2], "prompts.negative.test.file: " + job.folder().PathOf("jobs/n_test.json") + ":1: not valid JSON");
}

TEST(JobSpecFilesTest, SharedPromptsAreNamed) {
  const JobFolder job;
  job.folder().Write("jobs/p_val.json", "[\"p_train one\", \"p_train two\", \"own\"]");
  job.folder().Write("jobs/n_test.json", "[\"own\"]");
  EXPECT_THAT(
      Lines(job.Load()),
      ElementsAre(
          "prompts.positive.validation.file: shares 2 prompts with prompts.positive.train; the first is \"p_train one\"",
          "prompts.negative.test.file: shares 1 prompt with prompts.positive.validation; the first is \"own\""));
}

TEST(JobSpecFilesTest, CountLimitsWhatIsCompared) {
  const JobFolder job;
  job.folder().Write("jobs/p_train.json", "[\"a\", \"b\", \"p_val one\"]");
  EXPECT_THAT(Lines(job.Load()), IsEmpty()) << "train takes the first two";
}

TEST(JobSpecFilesTest, AMissingChatTemplateIsNamed) {
  const JobFolder job;
  JobSpec spec = job.Load();
  spec.mutable_model()->set_chat_template(job.folder().PathOf("none.jinja"));
  ASSERT_EQ(Lines(spec).size(), 1u);
  EXPECT_THAT(Lines(spec)[0], HasSubstr("model.chat_template: "));
}

TEST(JobSpecFilesTest, TheOutputMustBeFreeOrAnUnfinishedRunOfTheSameJob) {
  const JobFolder job;
  JobSpec spec = job.Load();
  std::filesystem::create_directories(spec.output());
  EXPECT_THAT(Lines(spec), IsEmpty()) << "an empty folder";
  ASSERT_TRUE(OutputFolder::Open(spec.output(), "{}", *SpecDigest(spec), "model").ok());
  EXPECT_THAT(Lines(spec), IsEmpty()) << "an unfinished run of this job";
  spec.mutable_select()->set_kl_max(0.3);
  ASSERT_EQ(Lines(spec).size(), 1u);
  EXPECT_THAT(Lines(spec)[0], HasSubstr("output: the folder holds an unfinished run of another job"));
}

}  // namespace
}  // namespace bearing::jobs
