#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <set>

#include "jobs/job_spec.h"
#include "tests/jobs/job_folder.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;

TEST(JobSpecDigestTest, DoesNotDependOnNamesAndPlaces) {
  const JobFolder job;
  const JobFolder elsewhere;
  JobSpec spec = job.Load();
  const std::string digest = *SpecDigest(spec);
  EXPECT_EQ(digest.size(), 64u);
  spec.set_name("other");
  spec.set_output("/other");
  spec.set_ranks(9);
  (*spec.mutable_labels())["x"] = "y";
  EXPECT_EQ(*SpecDigest(spec), digest);
  JobSpec moved = elsewhere.Load();
  moved.mutable_model()->set_path(spec.model().path());
  EXPECT_EQ(*SpecDigest(moved), digest) << "the same prompts in another folder";
}

TEST(JobSpecDigestTest, AnExplicitDefaultIsTheSameAsNone) {
  const JobFolder job;
  JobSpec spec = job.Load();
  spec.clear_select();
  const std::string digest = *SpecDigest(spec);
  spec.mutable_select()->set_kl_max(0.1);
  spec.mutable_select()->set_when_none_passes("fail");
  spec.mutable_prompts()->mutable_positive()->mutable_train()->set_column("instruction");
  EXPECT_EQ(*SpecDigest(spec), digest);
}

TEST(JobSpecDigestTest, DependsOnEverySetting) {
  const JobFolder job;
  const JobSpec spec = job.Load();
  const std::function<void(JobSpec&)> changes[] = {
      [](JobSpec&) {},
      [](JobSpec& s) { s.mutable_model()->set_dtype("float32"); },
      [](JobSpec& s) { s.mutable_model()->set_path("/other"); },
      [](JobSpec& s) { s.mutable_concept_spec()->add_tokens("Sorry"); },
      [](JobSpec& s) { s.mutable_concept_spec()->add_markers("Sorry"); },
      [](JobSpec& s) { s.mutable_prompts()->set_system("Be long."); },
      [](JobSpec& s) { s.mutable_prompts()->mutable_positive()->mutable_train()->set_count(1); },
      [](JobSpec& s) { s.mutable_collect()->set_filter(true); },
      [](JobSpec& s) { s.mutable_select()->set_kl_max(0.21); },
      [](JobSpec& s) { s.mutable_select()->add_layers(3); },
      [](JobSpec& s) { s.mutable_evaluate()->set_max_new_tokens(17); },
      [](JobSpec& s) { s.mutable_edit()->set_keep_tied(false); },
  };
  std::set<std::string> digests;
  for (const auto& change : changes) {
    JobSpec changed = spec;
    change(changed);
    digests.insert(*SpecDigest(changed));
  }
  EXPECT_EQ(digests.size(), std::size(changes));
}

TEST(JobSpecDigestTest, DependsOnTheContentOfPromptsAndTemplate) {
  const JobFolder job;
  JobSpec spec = job.Load();
  spec.mutable_model()->set_chat_template(job.folder().Write("a.jinja", "{{ a }}"));
  std::set<std::string> digests = {*SpecDigest(spec)};
  job.folder().Write("a.jinja", "{{ b }}");
  digests.insert(*SpecDigest(spec));
  job.folder().Write("jobs/n_val.json", "[\"changed\"]");
  digests.insert(*SpecDigest(spec));
  EXPECT_EQ(digests.size(), 3u);
}

TEST(JobSpecDigestTest, AMissingPromptFileIsNotFound) {
  const JobFolder job;
  std::filesystem::remove(job.folder().PathOf("jobs/n_val.json"));
  EXPECT_EQ(SpecDigest(job.Load()).status().code(), absl::StatusCode::kNotFound);
}

TEST(JobSpecDigestTest, OfAStageDependsOnWhatItReads) {
  using bearing::v1::Stage;
  const JobFolder job;
  const JobSpec spec = job.Load();
  struct Change {
    std::function<void(JobSpec&)> apply;
    std::set<Stage> matters_to;
  };
  const Stage collect = Stage::STAGE_COLLECT, select = Stage::STAGE_SELECT, evaluate = Stage::STAGE_EVALUATE;
  const Change changes[] = {
      {[](JobSpec& s) { s.set_output("/other"); }, {}},
      {[](JobSpec& s) { s.mutable_edit()->set_strength(0.5); }, {}},
      {[](JobSpec& s) { s.add_judges()->add_markers("Sorry"); }, {}},
      {[](JobSpec& s) { s.mutable_costs()->add_choices()->set_file(s.prompts().positive().train().file()); }, {}},
      {[](JobSpec& s) { s.mutable_evaluate()->set_max_new_tokens(17); }, {evaluate}},
      {[](JobSpec& s) { s.mutable_prompts()->mutable_negative()->mutable_test()->set_count(1); }, {evaluate}},
      {[](JobSpec& s) { s.mutable_select()->set_kl_max(0.21); }, {select, evaluate}},
      {[](JobSpec& s) { s.mutable_collect()->set_max_batch(3); }, {collect, select, evaluate}},
      {[](JobSpec& s) { s.mutable_prompts()->mutable_negative()->mutable_validation()->set_count(1); },
       {collect, select, evaluate}},
      {[](JobSpec& s) { s.mutable_model()->set_dtype("float32"); }, {collect, select, evaluate}},
  };
  for (const Change& change : changes) {
    JobSpec changed = spec;
    change.apply(changed);
    for (const Stage stage : {collect, select, evaluate}) {
      EXPECT_EQ(*StageDigest(changed, stage) != *StageDigest(spec, stage), change.matters_to.contains(stage))
          << changed.ShortDebugString() << " " << stage;
    }
  }
  EXPECT_NE(*StageDigest(spec, collect), *StageDigest(spec, select));
  EXPECT_FALSE(StageDigest(spec, Stage::STAGE_EDIT).ok());
}

}  // namespace
}  // namespace bearing::jobs
