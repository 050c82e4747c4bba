#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "jobs/job_spec.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(std::string_view assignment) {
  JobSpec spec;
  const absl::Status status = SetField(spec, assignment);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << assignment;
  EXPECT_EQ(spec.ByteSizeLong(), 0u) << "a wrong value must leave the job as it was";
  return std::string(status.message());
}

TEST(JobSpecSetFieldTest, SetsEveryKindOfField) {
  JobSpec spec;
  for (const char* assignment :
       {"select.kl_max=0.2", "ranks=4", "model.path=/m/x=y", "concept.name=refusal", "select.layers=[1,2]",
        "select.positions=-1, -2", "labels.team=safety", "labels.a.b=1", "collect.filter=false",
        "prompts.positive.train.count=7", "model.dtype=true", "evaluate.maxNewTokens=9"}) {
    EXPECT_TRUE(SetField(spec, assignment).ok()) << assignment;
  }
  EXPECT_DOUBLE_EQ(spec.select().kl_max(), 0.2);
  EXPECT_EQ(spec.ranks(), 4);
  EXPECT_EQ(spec.model().path(), "/m/x=y");
  EXPECT_EQ(spec.concept_spec().name(), "refusal");
  EXPECT_THAT(spec.select().layers(), ElementsAre(1, 2));
  EXPECT_THAT(spec.select().positions(), ElementsAre(-1, -2));
  EXPECT_EQ(spec.labels().at("team"), "safety");
  EXPECT_EQ(spec.labels().at("a.b"), "1");
  EXPECT_TRUE(spec.collect().has_filter());
  EXPECT_FALSE(spec.collect().filter());
  EXPECT_EQ(spec.prompts().positive().train().count(), 7);
  EXPECT_EQ(spec.model().dtype(), "true") << "text is taken as it is";
  EXPECT_EQ(spec.evaluate().max_new_tokens(), 9);
}

TEST(JobSpecSetFieldTest, ReplacesAList) {
  JobSpec spec;
  spec.mutable_select()->add_layers(9);
  ASSERT_TRUE(SetField(spec, "select.layers=3").ok());
  EXPECT_THAT(spec.select().layers(), ElementsAre(3));
}

TEST(JobSpecSetFieldTest, NamesTheFieldThatIsWrong) {
  EXPECT_EQ(ErrorOf("ranks"), "expected FIELD=VALUE, e.g. select.kl_max=0.2; found \"ranks\"");
  EXPECT_EQ(ErrorOf("=3"), "expected FIELD=VALUE, e.g. select.kl_max=0.2; found \"=3\"");
  EXPECT_EQ(ErrorOf("select.kl_mx=1"), "select.kl_mx: unknown key; did you mean \"kl_max\"?");
  EXPECT_EQ(ErrorOf("ranks=x"), "ranks: expected a whole number, found \"x\"");
  EXPECT_EQ(ErrorOf("select.layers=[1,b]"), "select.layers[1]: expected a whole number, found \"b\"");
  EXPECT_EQ(ErrorOf("collect=1"), "collect: is a group; set one of its fields: filter, max_batch, dump");
  EXPECT_EQ(ErrorOf("labels=1"), "labels: is a group; set one of its fields: KEY");
  EXPECT_EQ(ErrorOf("name.x=1"), "name.x: \"name\" has no fields of its own");
  EXPECT_EQ(ErrorOf("judges.name=x"), "judges.name: \"judges\" is a list of groups; it can only be given in the job file");
  EXPECT_THAT(ErrorOf("select.layers=[1"), HasSubstr("select.layers"));
}

}  // namespace
}  // namespace bearing::jobs
