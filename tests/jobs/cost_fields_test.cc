// The `costs` section of a job file.
#include "jobs/cost_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/jobs/job_folder.h"
#include "tests/jobs/job_text.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

JobSpec Parsed(const std::string& costs) {
  const auto spec = ParseJobFile(std::string(kGoodJob) + costs, "job.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : JobSpec();
}

std::vector<std::string> Lines(const std::vector<FieldViolation>& violations) {
  std::vector<std::string> lines;
  for (const FieldViolation& violation : violations) lines.push_back(violation.field + ": " + violation.message);
  return lines;
}

TEST(CostFieldsTest, AreOffWithoutTheSection) {
  JobSpec spec = Parsed("");
  ApplyDefaults(spec);
  EXPECT_FALSE(spec.has_costs());
  EXPECT_FALSE(MeasuresCosts(spec));
  EXPECT_THAT(CostFiles(spec), IsEmpty());
  EXPECT_TRUE(MeasuresCosts(Parsed("costs: {completions: {}}\n")));
  EXPECT_FALSE(MeasuresCosts(Parsed("costs: {completions: {}, skip: true}\n")));
}

TEST(CostFieldsTest, DefaultsAreWrittenOut) {
  JobSpec spec = Parsed(
      "costs:\n  completions: {}\n  texts: [{file: a/wiki.txt}]\n  choices: [{file: b.jsonl}, {file: c.jsonl, chat_template: "
      "true}]\n  answers: [{file: d.jsonl, name: gsm}]\n");
  EXPECT_THAT(ValidateCostFields(spec), IsEmpty());
  ApplyDefaults(spec);
  const bearing::v1::Costs& costs = spec.costs();
  EXPECT_EQ(costs.completions().side(), "negative");
  EXPECT_EQ(costs.completions().kl_tokens(), 16);
  EXPECT_EQ(costs.texts(0).name(), "wiki");
  EXPECT_EQ(costs.texts(0).column(), "text");
  EXPECT_EQ(costs.texts(0).max_tokens(), 1024);
  EXPECT_EQ(costs.choices(0).delimiter(), " ");
  EXPECT_EQ(costs.choices(1).delimiter(), "");
  EXPECT_EQ(costs.answers(0).name(), "gsm");
  EXPECT_EQ(costs.answers(0).max_new_tokens(), 256);
  EXPECT_THAT(ValidateCostFields(spec), IsEmpty());
  spec.mutable_costs()->mutable_completions()->set_kl_tokens(0);
  ApplyDefaults(spec);
  EXPECT_EQ(spec.costs().completions().kl_tokens(), 0) << "0 is a choice, not a default";
}

TEST(CostFieldsTest, MistakesAreNamedWithTheirField) {
  const auto lines = Lines(ValidateFields(Parsed(
      "costs:\n  completions: {side: left, kl_tokens: -1, count: -2}\n  texts: [{name: a}, {file: x.parquet}, {file: "
      "y.txt, max_tokens: 1}]\n  choices: [{file: z.csv}, {file: s3://}]\n  answers: [{file: y.jsonl, pattern: \"(\"}]\n")));
  EXPECT_THAT(lines, Contains("costs.completions.side: expected one of negative, positive, both, found \"left\""));
  EXPECT_THAT(lines, Contains("costs.completions.kl_tokens: expected 0 (no KL) to 8192, found -1"));
  EXPECT_THAT(lines, Contains("costs.completions.count: expected 0 (all) or more, found -2"));
  EXPECT_THAT(lines, Contains("costs.texts[0].file: missing: give the file"));
  EXPECT_THAT(lines, Contains("costs.texts[1].file: expected a .json, .jsonl, .csv or .txt file, found \"x.parquet\""));
  EXPECT_THAT(lines, Contains("costs.texts[2].max_tokens: expected 2 to 1048576, found 1"));
  EXPECT_THAT(lines, Contains(HasSubstr("costs.choices[0].file: expected a .jsonl file")));
  EXPECT_THAT(lines, Contains(HasSubstr("costs.choices[1].file: ")));
  EXPECT_THAT(lines, Contains("costs.answers[0].name: given twice: y"));
  EXPECT_THAT(lines, Contains(HasSubstr("costs.answers[0].pattern: not a regular expression (RE2): missing )")));
}

TEST(CostFieldsTest, NothingToMeasureIsAMistake) {
  EXPECT_THAT(Lines(ValidateCostFields(Parsed("costs: {addition: true}\n"))),
              ElementsAre(HasSubstr("costs: nothing to measure")));
  JobSpec spec = Parsed("costs: {completions: {}}\n");
  spec.mutable_evaluate()->set_skip(true);
  EXPECT_THAT(Lines(ValidateCostFields(spec)), ElementsAre(HasSubstr("costs.completions: needs the completions")));
  spec.mutable_costs()->set_skip(true);
  EXPECT_THAT(ValidateCostFields(spec), IsEmpty());
}

TEST(CostFieldsTest, FilesAreResolvedReadAndPartOfTheDigest) {
  const JobFolder job;
  job.folder().Write("jobs/texts.txt", "one text\n");
  job.folder().Write("jobs/q.jsonl", "{\"question\": \"Q\", \"choices\": [\"x\"], \"answer\": 0}\n");
  const std::string file = job.folder().Write("jobs/costs.yaml", std::string(kGoodJob) +
                                                                     "costs:\n  texts: [{file: texts.txt}]\n  choices: "
                                                                     "[{file: q.jsonl}]\n  answers: [{file: none.jsonl}]\n");
  auto spec = LoadJobFile(file);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->costs().texts(0).file(), job.folder().PathOf("jobs/texts.txt"));
  EXPECT_THAT(Lines(ValidateFiles(*spec)),
              ElementsAre(HasSubstr("costs.choices[0].file: " + job.folder().PathOf("jobs/q.jsonl") + ":1"),
                          HasSubstr("costs.answers[0].file: ")));
  spec->mutable_costs()->clear_answers();
  const std::string before = *SpecDigest(*spec);
  EXPECT_NE(before, *SpecDigest(job.Load()));
  job.folder().Write("jobs/copy.txt", "one text\n");
  spec->mutable_costs()->mutable_texts(0)->set_file(job.folder().PathOf("jobs/copy.txt"));
  spec->mutable_costs()->mutable_texts(0)->set_name("texts");
  EXPECT_EQ(*SpecDigest(*spec), before) << "content counts, not the place";
  job.folder().Write("jobs/copy.txt", "another text\n");
  EXPECT_NE(*SpecDigest(*spec), before);
}

}  // namespace
}  // namespace bearing::jobs
