#include "cli/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;

bearing::v1::Job TestJob() {
  bearing::v1::Job job;
  job.set_name("refusal-3f9a1c");
  job.set_state(bearing::v1::JOB_STATE_RUNNING);
  job.mutable_spec()->mutable_concept_spec()->set_name("refusal");
  job.mutable_spec()->mutable_select()->set_kl_max(0.25);
  job.mutable_progress()->set_stage(bearing::v1::STAGE_SELECT);
  job.mutable_progress()->set_done(5);
  job.mutable_progress()->set_total(10);
  job.mutable_progress()->set_unit("candidates");
  job.mutable_create_time()->set_seconds(1000);
  job.mutable_start_time()->set_seconds(1010);
  return job;
}

TEST(OutputTest, JsonIsTheProtoMapping) {
  const auto text = Encode(TestJob(), OutputFormat::kJson);
  ASSERT_TRUE(text.ok());
  const nlohmann::json job = nlohmann::json::parse(*text, nullptr, false);
  EXPECT_EQ(job["state"], "JOB_STATE_RUNNING");
  EXPECT_EQ(job["spec"]["concept"]["name"], "refusal");
  EXPECT_EQ(job["spec"]["select"]["klMax"], 0.25);
  EXPECT_EQ(job["attempt"], 0);
  EXPECT_EQ(text->back(), '\n');
}

TEST(OutputTest, YamlQuotesWhatWouldReadAsSomethingElse) {
  const nlohmann::json value = {
      {"a", "plain-word"}, {"b", "yes"},         {"c", "a: b # c"}, {"d", "12"},        {"e", nlohmann::json::array()},
      {"f", {1, "x"}},     {"g", {{"h", true}}}, {"i", ""},         {"j", "line\nline"}};
  EXPECT_EQ(JsonToYaml(value),
            "a: plain-word\nb: \"yes\"\nc: \"a: b # c\"\nd: \"12\"\ne: []\nf:\n  - 1\n  - x\ng:\n  h: true\ni: \"\"\n"
            "j: \"line\\nline\"\n");
}

TEST(OutputTest, TablesCountCharacters) {
  EXPECT_EQ(FormatTable({{"A", "B"}, {"äöü", "x"}, {"long", "y"}}), "A     B\näöü   x\nlong  y\n");
}

TEST(OutputTest, JobTable) {
  EXPECT_EQ(FormatJobTable({TestJob()}, absl::FromUnixSeconds(1070)),
            "NAME            STATE    STAGE   PROGRESS         RAN   AGE\n"
            "refusal-3f9a1c  running  select  5/10 candidates  1:00  70s\n");
}

TEST(OutputTest, DetailsEndWithTheNextCommand) {
  bearing::v1::Job job = TestJob();
  EXPECT_THAT(FormatJobDetails(job, absl::FromUnixSeconds(1070)), HasSubstr("next: bearing watch refusal-3f9a1c\n"));
  job.set_state(bearing::v1::JOB_STATE_FAILED);
  job.mutable_error()->set_reason("OUT_OF_MEMORY");
  job.mutable_error()->set_message("no room");
  const std::string text = FormatJobDetails(job, absl::FromUnixSeconds(1070));
  EXPECT_THAT(text, HasSubstr("OUT_OF_MEMORY: no room"));
  EXPECT_THAT(text, HasSubstr("next: bearing submit"));
}

}  // namespace
}  // namespace bearing::cli
