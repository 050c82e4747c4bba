#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

#include "jobs/job_spec.h"
#include "tests/jobs/job_text.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kHead[] = "apiVersion: bearing/v1\nkind: Job\n";

std::string ErrorOf(const std::string& text) {
  const absl::StatusOr<JobSpec> spec = ParseJobFile(text, "job.yaml");
  if (spec.ok()) return "parsed";
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(spec.status().message());
}

TEST(JobSpecParseTest, ReadsEveryField) {
  const absl::StatusOr<JobSpec> spec = ParseJobFile(kGoodJob, "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "refusal-demo");
  EXPECT_EQ(spec->model().path(), "models/demo");
  EXPECT_EQ(spec->model().dtype(), "bfloat16");
  EXPECT_EQ(spec->concept_spec().name(), "refusal");
  EXPECT_THAT(spec->concept_spec().tokens(), ElementsAre("I", "As", "No"));
  EXPECT_EQ(spec->prompts().positive().train().file(), "p_train.json");
  EXPECT_EQ(spec->prompts().positive().train().count(), 2);
  EXPECT_EQ(spec->prompts().negative().test().file(), "n_test.json");
  EXPECT_EQ(spec->prompts().system(), "Be brief.");
  EXPECT_TRUE(spec->collect().has_filter());
  EXPECT_FALSE(spec->collect().filter());
  EXPECT_TRUE(spec->select().complete());
  EXPECT_DOUBLE_EQ(spec->select().kl_max(), 0.2);
  EXPECT_DOUBLE_EQ(spec->select().induce_min(), -1);
  EXPECT_TRUE(spec->select().has_prune_layers());
  EXPECT_THAT(spec->select().layers(), ElementsAre(1, 2));
  EXPECT_THAT(spec->select().positions(), ElementsAre(-1, -2));
  EXPECT_EQ(spec->evaluate().max_new_tokens(), 16);
  EXPECT_TRUE(spec->edit().keep_tied());
  EXPECT_EQ(spec->ranks(), 2);
  EXPECT_EQ(spec->labels().at("issue"), "12") << "a plain number is accepted where text is wanted";
}

TEST(JobSpecParseTest, ReadsJsonWithTheSpellingsOfProtobufJson) {
  const absl::StatusOr<JobSpec> spec = ParseJobFile(
      "{\n\t\"apiVersion\": \"bearing/v1\", \"kind\": \"Job\",\n\t\"name\": \"caf\\u00e9 \\ud83d\\ude00 \\/\",\n"
      "\t\"concept\": {\"tokenIds\": [40, 2121]},\n\t\"select\": {\"klMax\": 0.5, \"whenNonePasses\": \"fail\", \"layers\": "
      "[]}\n}\n",
      "job.json");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "café 😀 /");
  EXPECT_THAT(spec->concept_spec().token_ids(), ElementsAre(40, 2121));
  EXPECT_DOUBLE_EQ(spec->select().kl_max(), 0.5);
}

TEST(JobSpecParseTest, TakesTheProtoNameOfConceptToo) {
  const absl::StatusOr<JobSpec> spec = ParseJobFile(std::string(kHead) + "concept_spec: {name: x}\n", "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->concept_spec().name(), "x");
}

TEST(JobSpecParseTest, NullLeavesAFieldUnset) {
  const absl::StatusOr<JobSpec> spec = ParseJobFile(std::string(kHead) + "name:\nselect:\ncollect: {filter: ~}\n", "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "");
  EXPECT_FALSE(spec->collect().has_filter());
}

TEST(JobSpecParseTest, BlockTextKeepsItsLastLineBreak) {
  const absl::StatusOr<JobSpec> spec =
      ParseJobFile(std::string(kHead) + "prompts:\n  system: |\n    one\n    two\n", "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prompts().system(), "one\ntwo\n");
}

TEST(JobSpecParseTest, AnAliasRepeatsAPart) {
  const absl::StatusOr<JobSpec> spec =
      ParseJobFile(std::string(kHead) + "prompts:\n  positive: {train: &t {file: a.txt}, test: *t}\n", "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prompts().positive().test().file(), "a.txt");
}

TEST(JobSpecParseTest, UnknownKeyHasPathLineAndSuggestion) {
  EXPECT_EQ(ErrorOf(std::string(kHead) + "select:\n  kl_mx: 0.1\n"),
            "job.yaml:4: select.kl_mx: unknown key; did you mean \"kl_max\"?");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "kl_max: 0.1\n"), "job.yaml:3: kl_max: unknown key; did you mean \"select.kl_max\"?");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "prompts:\n  positive:\n    trian: {file: x}\n"),
            "job.yaml:5: prompts.positive.trian: unknown key; did you mean \"train\"?");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "model:\n  ranks: 2\n"),
            "job.yaml:4: model.ranks: unknown key; \"ranks\" belongs at the top level");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "collect: {hotness: 1}\n"),
            "job.yaml:3: collect.hotness: unknown key; known here: filter, max_batch, dump");
}

TEST(JobSpecParseTest, WrongTypesSayWhatWasExpected) {
  const std::string head = kHead;
  EXPECT_EQ(ErrorOf(head + "ranks: two\n"), "job.yaml:3: ranks: expected a whole number, found \"two\"");
  EXPECT_EQ(ErrorOf(head + "ranks: \"2\"\n"), "job.yaml:3: ranks: expected a whole number, found the text \"2\"");
  EXPECT_EQ(ErrorOf(head + "ranks: 2.5\n"), "job.yaml:3: ranks: expected a whole number, found \"2.5\"");
  EXPECT_EQ(ErrorOf(head + "ranks: 99999999999\n"), "job.yaml:3: ranks: expected a whole number, found \"99999999999\"");
  EXPECT_EQ(ErrorOf(head + "select: {kl_max: low}\n"), "job.yaml:3: select.kl_max: expected a number, found \"low\"");
  EXPECT_EQ(ErrorOf(head + "select: {kl_max: .inf}\n"), "job.yaml:3: select.kl_max: expected a number, found \".inf\"");
  EXPECT_EQ(ErrorOf(head + "select: {complete: yes}\n"), "job.yaml:3: select.complete: expected true or false, found \"yes\"");
  EXPECT_EQ(ErrorOf(head + "select: {layers: 3}\n"), "job.yaml:3: select.layers: expected a list, found \"3\"");
  EXPECT_EQ(ErrorOf(head + "select:\n  layers:\n    - 1\n    - b\n"),
            "job.yaml:6: select.layers[1]: expected a whole number, found \"b\"");
  EXPECT_EQ(ErrorOf(head + "name: [a]\n"), "job.yaml:3: name: expected text, found a list");
  EXPECT_EQ(ErrorOf(head + "labels: text\n"), "job.yaml:3: labels: expected a map, found \"text\"");
  EXPECT_EQ(ErrorOf(head + "collect: true\n"),
            "job.yaml:3: collect: expected a map with filter, max_batch, dump, found \"true\"");
  EXPECT_EQ(ErrorOf(head + "concept: {tokens: [~]}\n"), "job.yaml:3: concept.tokens[0]: expected text, found nothing");
}

TEST(JobSpecParseTest, KeysGivenTwiceAreErrors) {
  EXPECT_EQ(ErrorOf(std::string(kHead) + "ranks: 1\nname: a\nranks: 2\n"), "job.yaml:5: ranks: given twice, first on line 3");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "select:\n  kl_max: 1\n  klMax: 2\n"),
            "job.yaml:5: select.kl_max: given twice, first on line 4");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "labels: {a: 1, a: 2}\n"), "job.yaml:3: labels.a: given twice");
}

TEST(JobSpecParseTest, AllMistakesAreReportedAtOnce) {
  const std::string error = ErrorOf("kind: Jobs\nnmae: x\nranks: many\nselect:\n  complete: 1\n");
  EXPECT_EQ(error,
            "job.yaml:1: apiVersion: missing; write `apiVersion: bearing/v1`\n"
            "job.yaml:1: kind: expected \"Job\", found \"Jobs\"\n"
            "job.yaml:2: nmae: unknown key; did you mean \"name\"?\n"
            "job.yaml:3: ranks: expected a whole number, found \"many\"\n"
            "job.yaml:5: select.complete: expected true or false, found \"1\"");
}

TEST(JobSpecParseTest, RefusesWhatIsNoSingleMap) {
  EXPECT_EQ(ErrorOf(""), "job.yaml: the job file is empty");
  EXPECT_EQ(ErrorOf("# only a comment\n"), "job.yaml: the job file is empty");
  EXPECT_THAT(ErrorOf("- a\n- b\n"), HasSubstr("job.yaml:1: expected a map with name, model, concept, "));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "---\nname: b\n"), HasSubstr("more than one document"));
}

TEST(JobSpecParseTest, SyntaxErrorsHaveTheLine) {
  EXPECT_THAT(ErrorOf(std::string(kHead) + "select: {kl_max: 1\nname: x\n"), HasSubstr("job.yaml:"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "name: \"open\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "name: 'open\nranks: 2\n\n"), HasSubstr("not valid YAML"));
  EXPECT_EQ(ErrorOf(std::string(kHead) + "name: a\xFFz\n"), "job.yaml:3: the file is not valid UTF-8");
  EXPECT_EQ(ErrorOf(std::string(kHead) + "name: !custom x\n").substr(0, 40), "job.yaml:3: tags are not supported: !cus");
  EXPECT_THAT(ErrorOf(std::string(kHead) + "name: *nobody\n"), HasSubstr("job.yaml:3: not valid YAML"));
}

TEST(JobSpecParseTest, HostileFilesAreBounded) {
  EXPECT_THAT(ErrorOf(std::string((1 << 20) + 1, 'a')), HasSubstr("too large for a job file: bytes=1048577 at most=1048576"));
  std::string aliases = std::string(kHead) + "name: &a x\nconcept:\n  tokens:\n";
  for (int i = 0; i < 101; ++i) aliases += "    - *a\n";
  EXPECT_THAT(ErrorOf(aliases), HasSubstr("more than 100 aliases"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "labels: &a {x: *a}\n"), Not("parsed"));
  EXPECT_THAT(ErrorOf(std::string(kHead) + "name: " + std::string(200000, '[')), Not("parsed"));
}

absl::StatusOr<JobSpec> ParseText(const std::string& text) { return ParseJobFile(text, "job.textproto"); }

TEST(JobSpecParseTest, ReadsProtobufText) {
  const absl::StatusOr<JobSpec> yaml = ParseJobFile(kGoodJob, "job.yaml");
  ASSERT_TRUE(yaml.ok()) << yaml.status();
  std::string text;
  ASSERT_TRUE(google::protobuf::TextFormat::PrintToString(*yaml, &text));
  for (const char* name : {"job.textproto", "job.txtpb", "a/job.pbtxt"}) {
    const absl::StatusOr<JobSpec> spec = ParseJobFile(text, name);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*spec, *yaml));
  }
  EXPECT_NE(ErrorOf(text), "parsed") << "the name says which form it is";
}

TEST(JobSpecParseTest, MistakesInProtobufTextHaveTheirPlace) {
  EXPECT_EQ(ParseText("# proto-message: bearing.v1.JobSpec\nname: \"a\"\nselect {\n  kl_mx: 1\n}\n").status().message(),
            "job.textproto:4:8: kl_mx: unknown key; did you mean \"kl_max\"?");
  EXPECT_THAT(ParseText("name: \"a\"\nname: \"b\"\n").status().message(), HasSubstr("job.textproto:2:"));
  EXPECT_THAT(ParseText("ranks: \"many\"").status().message(), HasSubstr("job.textproto:1:8: Expected integer"));
  EXPECT_EQ(ParseText("concept_spec { tokens: \"a\" tokens: \"\\xff\" }").status().message(),
            "job.textproto: concept.tokens: not valid UTF-8");
  EXPECT_EQ(ParseText("# nothing\n").status().message(), "job.textproto: the job file is empty");
  EXPECT_THAT(ParseText(std::string((1 << 20) + 1, 'a')).status().message(), HasSubstr("too large for a job file"));
  EXPECT_FALSE(ParseText("select {" + std::string(200000, '{')).ok());
}

TEST(JobSpecParseTest, CutOffFilesNeverCrash) {
  const std::string good = kGoodJob;
  for (size_t size = 0; size < good.size(); ++size) (void)ParseJobFile(good.substr(0, size), "job.yaml");
}

}  // namespace
}  // namespace bearing::jobs
