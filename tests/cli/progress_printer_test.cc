#include "cli/progress_printer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace bearing::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

bearing::v1::Job Running(bearing::v1::Stage stage, int done) {
  bearing::v1::Job job;
  job.set_state(bearing::v1::JOB_STATE_RUNNING);
  job.mutable_progress()->set_stage(stage);
  job.mutable_progress()->set_done(done);
  job.mutable_progress()->set_total(10);
  return job;
}

void AddStageTime(bearing::v1::Job& job, bearing::v1::Stage stage, double seconds) {
  bearing::v1::StageTime* time = job.add_stage_times();
  time->set_stage(stage);
  time->set_seconds(seconds);
}

TEST(ProgressPrinterTest, PlainModePrintsAStageAndThenEveryTenSeconds) {
  std::ostringstream out;
  ProgressPrinter printer(out, ProgressMode::kPlain, 80);
  printer.Update(Running(bearing::v1::STAGE_COLLECT, 0), 100);
  printer.Update(Running(bearing::v1::STAGE_COLLECT, 1), 101);
  printer.Update(Running(bearing::v1::STAGE_COLLECT, 2), 105);
  printer.Tick(109);
  EXPECT_EQ(out.str(), "collect: 0/10\n");
  printer.Tick(110);
  EXPECT_EQ(out.str(), "collect: 0/10\ncollect: 2/10, 0.2/s, 0:40 left\n");
  bearing::v1::Job next = Running(bearing::v1::STAGE_SELECT, 0);
  AddStageTime(next, bearing::v1::STAGE_COLLECT, 11);
  printer.Update(next, 111);
  EXPECT_THAT(out.str(), EndsWith("collect      11.0 s\nselect: 0/10\n"));
}

TEST(ProgressPrinterTest, LiveModeRewritesOneLineAndRemovesIt) {
  std::ostringstream out;
  {
    ProgressPrinter printer(out, ProgressMode::kLive, 80);
    printer.Update(Running(bearing::v1::STAGE_COLLECT, 0), 100);
    printer.Update(Running(bearing::v1::STAGE_COLLECT, 5), 101);
    EXPECT_THAT(out.str(), Not(HasSubstr("\n")));
    EXPECT_THAT(out.str(), EndsWith("\r\x1b[Kcollect   [##########..........]  5/10  5/s  0:01 left"));
    printer.Say("note");
    EXPECT_THAT(out.str(), EndsWith("\r\x1b[Knote\n"));
    printer.Tick(102);
  }
  EXPECT_THAT(out.str(), EndsWith("\r\x1b[K"));
}

TEST(ProgressPrinterTest, EachStageEndIsPrintedOnce) {
  std::ostringstream out;
  ProgressPrinter printer(out, ProgressMode::kLive, 80);
  bearing::v1::Job job = Running(bearing::v1::STAGE_SELECT, 0);
  AddStageTime(job, bearing::v1::STAGE_COLLECT, 1);
  printer.Update(job, 100);
  printer.Update(job, 101);
  const std::string text = out.str();
  EXPECT_EQ(text.find("collect       1.0 s\n"), text.rfind("collect       1.0 s\n"));
  job.set_state(bearing::v1::JOB_STATE_SUCCEEDED);
  AddStageTime(job, bearing::v1::STAGE_SELECT, 2);
  printer.Update(job, 102);
  EXPECT_THAT(out.str(), EndsWith("select        2.0 s\n"));
}

TEST(ProgressPrinterTest, NoModePrintsNothingButWhatIsSaid) {
  std::ostringstream out;
  ProgressPrinter printer(out, ProgressMode::kNone, 80);
  bearing::v1::Job job = Running(bearing::v1::STAGE_SELECT, 0);
  AddStageTime(job, bearing::v1::STAGE_COLLECT, 1);
  printer.Update(job, 100);
  printer.Tick(120);
  EXPECT_EQ(out.str(), "");
  printer.Say("cancelling");
  EXPECT_EQ(out.str(), "cancelling\n");
}

}  // namespace
}  // namespace bearing::cli
