#include "cli/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

bearing::v1::Job Finished() {
  bearing::v1::Job job;
  job.mutable_spec()->set_output("/data/out");
  job.mutable_spec()->mutable_concept_spec()->set_name("refusal");
  bearing::v1::JobResult& result = *job.mutable_result();
  result.set_layer(15);
  result.set_position(-2);
  result.set_kl(0.03125);
  result.set_positive_baseline(0.96875);
  result.set_positive_ablated(0.015625);
  result.set_negative_baseline(-1);
  result.set_negative_added(-1);
  return job;
}

TEST(SummaryTest, ShowsWhatWasMeasured) {
  const std::string text = ResultTable(Finished());
  EXPECT_THAT(text, HasSubstr("layer 15, position -2"));
  EXPECT_THAT(text, HasSubstr("0.0312"));
  EXPECT_THAT(text, HasSubstr("refusal, positive prompts  96.9 % -> 1.6 %  (direction removed)"));
  EXPECT_THAT(text, Not(HasSubstr("negative prompts")));
  EXPECT_THAT(text, HasSubstr("/data/out/report.html"));
  EXPECT_THAT(text, HasSubstr("/data/out/checkpoint"));
}

TEST(SummaryTest, NoCheckpointWhenTheEditWasSkipped) {
  bearing::v1::Job job = Finished();
  job.mutable_spec()->mutable_edit()->set_skip(true);
  job.mutable_result()->set_report("/data/out/report.html");
  EXPECT_THAT(ResultTable(job), Not(HasSubstr("checkpoint")));
  EXPECT_THAT(ResultTable(job), HasSubstr("report                     /data/out/report.html"));
}

TEST(SummaryTest, ErrorNamesStageAndReason) {
  bearing::v1::Job job;
  EXPECT_EQ(ErrorText(job), "");
  job.mutable_error()->set_reason("NO_CANDIDATE");
  job.mutable_error()->set_message("none passes");
  EXPECT_EQ(ErrorText(job), "NO_CANDIDATE: none passes");
  job.mutable_error()->set_stage(bearing::v1::STAGE_SELECT);
  EXPECT_EQ(ErrorText(job), "select: NO_CANDIDATE: none passes");
}

}  // namespace
}  // namespace bearing::cli
