#include "cli/job_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bearing/v1/job.pb.h"
#include "jobs/job_spec.h"

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;

TEST(JobSchemaTest, HasFieldsCommentsAndWhatAJobMustHave) {
  const nlohmann::ordered_json schema = JobSchema();
  EXPECT_EQ(schema["required"], nlohmann::ordered_json({"apiVersion", "kind", "name", "model", "prompts", "output"}));
  // `concept` has a second spelling.
  EXPECT_THAT(schema["allOf"].dump(), HasSubstr(R"({"required":["concept"]})"));
  EXPECT_EQ(schema["$defs"]["Model"]["required"], nlohmann::ordered_json::array({"path"}));
  EXPECT_EQ(schema["$defs"]["PromptSide"]["required"], nlohmann::ordered_json({"train", "validation"}));
  const auto& select = schema["$defs"]["Select"];
  EXPECT_EQ(select["additionalProperties"], false);
  EXPECT_EQ(select["properties"]["kl_max"]["description"], "A candidate must have KL <= kl_max. Default 0.1.");
  EXPECT_TRUE(select["patternProperties"].contains("^klMax$"));
  EXPECT_THAT(select["properties"]["when_none_passes"]["enum"].dump(), HasSubstr(R"("fail","relax_kl","relax_induce")"));
}

// Every field of every message a job can hold has a comment, or the name says all.
TEST(JobSchemaTest, NearlyEveryFieldIsExplained) {
  int all = 0;
  int explained = 0;
  const nlohmann::ordered_json schema = JobSchema();
  for (const auto& [name, definition] : schema["$defs"].items()) {
    for (const auto& [field, property] : definition["properties"].items()) {
      ++all;
      if (property.contains("description")) ++explained;
    }
  }
  EXPECT_GT(all, 80);
  EXPECT_GT(explained, all / 2);
}

// A job with `word` in the field, and what the checks say of it.
std::string Verdict(std::string_view field, const std::string& word) {
  bearing::v1::JobSpec spec;
  bearing::v1::Judge& judge = *spec.add_judges();
  judge.set_kind("model");
  judge.mutable_model()->set_path("judge");
  spec.mutable_costs()->mutable_completions();
  if (field == "Model.dtype") spec.mutable_model()->set_dtype(word);
  if (field == "Model.residency") spec.mutable_model()->set_residency(word);
  if (field == "Select.when_none_passes") spec.mutable_select()->set_when_none_passes(word);
  if (field == "Edit.form") spec.mutable_edit()->add_form(word);
  if (field == "Judge.kind") judge.set_kind(word);
  if (field == "JudgeModel.preset") judge.mutable_model()->set_preset(word);
  if (field == "JudgeModel.format") judge.mutable_model()->set_format(word);
  if (field == "JudgeModel.dtype") judge.mutable_model()->set_dtype(word);
  if (field == "JudgeModel.residency") judge.mutable_model()->set_residency(word);
  if (field == "CostCompletions.side") spec.mutable_costs()->mutable_completions()->set_side(word);
  jobs::ApplyDefaults(spec);
  std::string text;
  for (const jobs::FieldViolation& violation : jobs::ValidateFields(spec)) absl::StrAppend(&text, violation.message, "\n");
  return text;
}

TEST(JobSchemaTest, TheWordsAreThoseOfTheChecks) {
  for (const FieldWords& field : JobFieldWords()) {
    EXPECT_THAT(Verdict(field.field, "no-such-word"), HasSubstr(absl::StrCat("one of ", absl::StrJoin(field.words, ", "), ",")))
        << field.field;
    for (const std::string& word : field.words) {
      EXPECT_THAT(Verdict(field.field, word), ::testing::Not(HasSubstr("one of "))) << field.field << " " << word;
    }
  }
}

}  // namespace
}  // namespace bearing::cli
