#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "jobs/job_spec.h"
#include "tests/jobs/job_text.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using testing::ElementsAre;
using testing::IsEmpty;

JobSpec Good() { return *ParseJobFile(kGoodJob, "job.yaml"); }

// The violations of a good job after `change`, as "field: message".
std::vector<std::string> After(const std::function<void(JobSpec&)>& change) {
  JobSpec spec = Good();
  change(spec);
  std::vector<std::string> lines;
  for (const FieldViolation& violation : ValidateFields(spec)) lines.push_back(violation.field + ": " + violation.message);
  return lines;
}

TEST(JobSpecValidateTest, AGoodJobHasNoViolations) {
  EXPECT_THAT(ValidateFields(Good()), IsEmpty());
  JobSpec spec = Good();
  ApplyDefaults(spec);
  EXPECT_THAT(ValidateFields(spec), IsEmpty());
}

TEST(JobSpecValidateTest, AnEmptyJobNamesEverythingThatIsMissingAtOnce) {
  std::vector<std::string> fields;
  for (const FieldViolation& violation : ValidateFields(JobSpec())) fields.push_back(violation.field);
  EXPECT_THAT(fields,
              ElementsAre("name", "model.path", "concept.name", "concept.markers", "prompts.positive.train.file",
                          "prompts.positive.validation.file", "prompts.positive.test.file", "prompts.negative.train.file",
                          "prompts.negative.validation.file", "prompts.negative.test.file", "output"));
}

TEST(JobSpecValidateTest, Names) {
  for (const char* name : {"a", "a-b", "0x9", "a--b"}) {
    EXPECT_THAT(After([&](JobSpec& spec) { spec.set_name(name); }), IsEmpty()) << name;
  }
  for (const std::string& name : {std::string(""), std::string("A"), std::string("-a"), std::string("a-"), std::string("a_b"),
                                  std::string("a/../b"), std::string("é"), std::string(64, 'a')}) {
    EXPECT_THAT(
        After([&](JobSpec& spec) { spec.set_name(name); }),
        ElementsAre("name: expected lower-case letters, digits and inner dashes, 1 to 63 characters, found \"" + name + "\""));
  }
}

TEST(JobSpecValidateTest, Sampling) {
  const auto with = [](const std::function<void(bearing::v1::Evaluate&)>& change) {
    return After([&](JobSpec& s) { change(*s.mutable_evaluate()); });
  };
  using E = bearing::v1::Evaluate;
  EXPECT_THAT(with([](E& e) {
                e.set_temperature(0.7);
                e.set_top_p(0.9);
                e.set_seed(4);
                e.add_stop("\nUser:");
                e.add_stop_token_ids(7);
              }),
              IsEmpty());
  EXPECT_THAT(with([](E& e) { e.set_temperature(-1); }),
              ElementsAre("evaluate.temperature: expected 0 (greedy) to 100, found -1"));
  EXPECT_THAT(with([](E& e) { e.set_temperature(std::numeric_limits<double>::quiet_NaN()); }),
              ElementsAre("evaluate.temperature: expected 0 (greedy) to 100, found nan"));
  EXPECT_THAT(with([](E& e) {
                e.set_temperature(1);
                e.set_top_p(0);
              }),
              ElementsAre("evaluate.top_p: expected a number above 0, at most 1, found 0"));
  EXPECT_THAT(with([](E& e) { e.set_top_p(0.9); }),
              ElementsAre("evaluate.top_p: has no effect on greedy completions: set evaluate.temperature, e.g. to 1"));
  EXPECT_THAT(with([](E& e) { e.set_seed(-2); }), ElementsAre("evaluate.seed: expected 0 or more, found -2"));
  EXPECT_THAT(with([](E& e) { e.add_stop(""); }), ElementsAre("evaluate.stop[0]: must not be empty"));
  EXPECT_THAT(with([](E& e) { e.add_stop_token_ids(-1); }),
              ElementsAre("evaluate.stop_token_ids: expected ids of 0 or more, found -1"));
}

TEST(JobSpecValidateTest, FormsOfTheEdit) {
  const auto with = [](const std::vector<std::string>& forms, const std::function<void(bearing::v1::Edit&)>& more = {}) {
    return After([&](JobSpec& spec) {
      for (const std::string& form : forms) spec.mutable_edit()->add_form(form);
      if (more) more(*spec.mutable_edit());
    });
  };
  EXPECT_THAT(with({"checkpoint", "lora", "control-vector", "direction"}), IsEmpty());
  EXPECT_THAT(with({"lora", "loar"}), ElementsAre("edit.form[1]: expected one of checkpoint, lora, control-vector, direction, "
                                                  "found \"loar\"; did you mean \"lora\"?"));
  EXPECT_THAT(with({"lora", "lora"}), ElementsAre("edit.form[1]: given twice: lora"));
  EXPECT_THAT(with({"lora"}, [](auto& edit) { edit.set_preserve_norms(true); }),
              ElementsAre("edit.form: lora cannot hold edit.preserve_norms, which is not of low rank"));
  EXPECT_THAT(with({"lora"}, [](auto& edit) { edit.set_induce(1); }),
              ElementsAre("edit.form: lora cannot hold edit.induce, which is no product of matrices"));
  EXPECT_THAT(After([](JobSpec& spec) {
                spec.mutable_edit()->add_form("control-vector");
                spec.mutable_select()->clear_layers();
                spec.mutable_select()->add_layers(1);
              }),
              ElementsAre("edit.form: control-vector reaches layers from 2 on, and select.layers has none of them"));
}

TEST(JobSpecValidateTest, AnAdditionTakesNothingThatSaysHowToRemove) {
  const auto with = [](const std::function<void(bearing::v1::Edit&)>& change) {
    return After([&](JobSpec& spec) {
      spec.mutable_edit()->set_induce(0.5);
      change(*spec.mutable_edit());
    });
  };
  EXPECT_THAT(with([](auto& edit) { edit.set_keep_tied(true); }), IsEmpty());
  EXPECT_THAT(with([](auto& edit) { edit.set_induce(0); }),
              ElementsAre("edit.induce: expected a finite number other than 0, found 0"));
  const std::string why = ": cannot be given with edit.induce, which removes nothing";
  EXPECT_THAT(with([](auto& edit) { edit.set_strength(1); }), ElementsAre("edit.strength" + why));
  EXPECT_THAT(with([](auto& edit) { edit.add_layer_strengths(1); }), ElementsAre("edit.layer_strengths" + why));
  EXPECT_THAT(with([](auto& edit) { edit.set_last_layer(3); }), ElementsAre("edit.last_layer" + why));
  EXPECT_THAT(with([](auto& edit) { edit.set_projected(true); }), ElementsAre("edit.projected" + why));
}

TEST(JobSpecValidateTest, Ranges) {
  EXPECT_THAT(After([](JobSpec& s) { s.set_ranks(1025); }), ElementsAre("ranks: expected 0 (any group) to 1024, found 1025"));
  EXPECT_THAT(After([](JobSpec& s) { s.set_ranks(-1); }), ElementsAre("ranks: expected 0 (any group) to 1024, found -1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->set_kl_max(0); }),
              ElementsAre("select.kl_max: expected a number above 0, found 0"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->set_kl_max(std::numeric_limits<double>::quiet_NaN()); }),
              ElementsAre("select.kl_max: expected a number above 0, found nan"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->set_induce_min(std::numeric_limits<double>::infinity()); }),
              ElementsAre("select.induce_min: expected a finite number, found inf"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->set_prune_layers(1); }),
              ElementsAre("select.prune_layers: expected a share of at least 0 and below 1, found 1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->set_prune_layers(-0.1); }),
              ElementsAre("select.prune_layers: expected a share of at least 0 and below 1, found -0.1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->add_positions(0); }),
              ElementsAre("select.positions: expected negative positions (-1 is the last token), found 0"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->add_layers(-3); }),
              ElementsAre("select.layers: expected layers of 0 or more, found -3"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_select()->add_layers(1); }), ElementsAre("select.layers: given twice: 1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_evaluate()->set_max_new_tokens(0); }),
              ElementsAre("evaluate.max_new_tokens: expected 1 to 8192, found 0"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_evaluate()->set_addition_factor(0); }),
              ElementsAre("evaluate.addition_factor: expected a finite number other than 0, found 0"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_collect()->set_max_batch(-1); }),
              ElementsAre("collect.max_batch: expected 0 (from memory) or more, found -1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_prompts()->mutable_positive()->mutable_train()->set_count(-2); }),
              ElementsAre("prompts.positive.train.count: expected 0 (all) or more, found -2"));
}

TEST(JobSpecValidateTest, Choices) {
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_model()->set_dtype("bfloat"); }),
              ElementsAre("model.dtype: expected one of float32, bfloat16, found \"bfloat\"; did you mean \"bfloat16\"?"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_model()->set_dtype("int8"); }),
              ElementsAre("model.dtype: expected one of float32, bfloat16, found \"int8\""));
  EXPECT_THAT(
      After([](JobSpec& s) { s.mutable_select()->set_when_none_passes("relax-kl"); }),
      ElementsAre("select.when_none_passes: expected one of fail, relax_kl, relax_induce, found \"relax-kl\"; did you mean "
                  "\"relax_kl\"?"));
}

TEST(JobSpecValidateTest, Concept) {
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_concept_spec()->add_token_ids(40); }),
              ElementsAre("concept.tokens: give either concept.tokens or concept.token_ids, not both"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_concept_spec()->add_tokens(""); }),
              ElementsAre("concept.tokens[3]: must not be empty"));
  EXPECT_THAT(After([](JobSpec& s) {
                s.mutable_concept_spec()->clear_tokens();
                s.mutable_concept_spec()->add_token_ids(-1);
              }),
              ElementsAre("concept.token_ids: expected ids of 0 or more, found -1"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_concept_spec()->add_markers(" "); }),
              ElementsAre("concept.markers[0]: must not be empty"));
  EXPECT_EQ(After([](JobSpec& s) { s.mutable_concept_spec()->set_name("french"); }).size(), 1u) << "markers are needed";
  EXPECT_THAT(After([](JobSpec& s) {
                s.mutable_concept_spec()->set_name("french");
                s.mutable_evaluate()->set_skip(true);
              }),
              IsEmpty());
}

TEST(JobSpecValidateTest, PromptsAndOutput) {
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_prompts()->mutable_negative()->clear_validation(); }),
              ElementsAre("prompts.negative.validation.file: missing: give a file with prompts"));
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_prompts()->mutable_negative()->clear_test(); }),
              ElementsAre("prompts.negative.test.file: missing: give a file with prompts, or set evaluate.skip to true"));
  EXPECT_THAT(After([](JobSpec& s) {
                s.mutable_prompts()->mutable_negative()->clear_test();
                s.mutable_evaluate()->set_skip(true);
              }),
              IsEmpty());
  EXPECT_THAT(After([](JobSpec& s) { s.mutable_prompts()->mutable_positive()->mutable_train()->set_file("a.xlsx"); }),
              ElementsAre("prompts.positive.train.file: expected a .json, .jsonl, .csv or .txt file, found \"a.xlsx\""));
  EXPECT_THAT(After([](JobSpec& s) { s.set_output("models/./demo/"); }),
              ElementsAre("output: must not be the folder of the model"));
  EXPECT_THAT(After([](JobSpec& s) { s.clear_output(); }), ElementsAre("output: missing: give the folder for the artifacts"));
}

TEST(JobSpecValidateTest, Labels) {
  EXPECT_EQ(After([](JobSpec& s) { (*s.mutable_labels())[""] = "x"; }).size(), 1u);
  EXPECT_EQ(After([](JobSpec& s) { (*s.mutable_labels())["x"] = std::string(257, 'v'); }).size(), 1u);
}

TEST(JobSpecValidateTest, Defaults) {
  JobSpec spec;
  spec.mutable_concept_spec()->set_name("refusal");
  spec.mutable_prompts()->mutable_positive()->mutable_train()->set_file("a.txt");
  ApplyDefaults(spec);
  EXPECT_EQ(spec.model().dtype(), "float32");
  EXPECT_TRUE(spec.collect().filter());
  EXPECT_DOUBLE_EQ(spec.select().kl_max(), 0.1);
  EXPECT_TRUE(spec.select().has_induce_min());
  EXPECT_DOUBLE_EQ(spec.select().prune_layers(), 0.2);
  EXPECT_EQ(spec.select().when_none_passes(), "fail");
  EXPECT_EQ(spec.evaluate().max_new_tokens(), 64);
  EXPECT_DOUBLE_EQ(spec.evaluate().addition_factor(), 1);
  EXPECT_EQ(spec.prompts().positive().train().column(), "instruction");
  EXPECT_FALSE(spec.prompts().has_negative());
  EXPECT_EQ(spec.concept_spec().markers_size(), 12);
  EXPECT_EQ(spec.concept_spec().markers(0), "I'm sorry");
}

TEST(JobSpecValidateTest, DefaultsKeepWhatIsSet) {
  JobSpec spec = Good();
  spec.mutable_concept_spec()->add_markers("nope");
  JobSpec filled = spec;
  ApplyDefaults(filled);
  EXPECT_FALSE(filled.collect().filter());
  EXPECT_DOUBLE_EQ(filled.select().kl_max(), 0.2);
  EXPECT_DOUBLE_EQ(filled.select().prune_layers(), 0);
  EXPECT_THAT(filled.concept_spec().markers(), ElementsAre("nope"));
  JobSpec other;
  other.mutable_concept_spec()->set_name("french");
  ApplyDefaults(other);
  EXPECT_EQ(other.concept_spec().markers_size(), 0);
}

TEST(JobSpecValidateTest, StatusJoinsAll) {
  EXPECT_TRUE(ToStatus({}).ok());
  const absl::Status status = ToStatus({{"a", "x"}, {"b.c", "y"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "a: x; b.c: y");
}

}  // namespace
}  // namespace bearing::jobs
