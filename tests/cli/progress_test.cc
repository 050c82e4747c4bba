#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace bearing::cli {
namespace {

using bearing::v1::Job;

Job Running(bearing::v1::Stage stage, int done, int total, const std::string& note = "") {
  Job job;
  job.set_state(bearing::v1::JOB_STATE_RUNNING);
  job.mutable_progress()->set_stage(stage);
  job.mutable_progress()->set_done(done);
  job.mutable_progress()->set_total(total);
  job.mutable_progress()->set_unit("prompts");
  job.mutable_progress()->set_note(note);
  return job;
}

TEST(ProgressTest, LiveLineHasBarRateAndTimeLeft) {
  const StageClock clock = Advance({}, Running(bearing::v1::STAGE_COLLECT, 0, 100), 1000);
  EXPECT_EQ(LiveLine(clock, Running(bearing::v1::STAGE_COLLECT, 50, 100, "batch 8"), 1004, 120),
            "collect   [##########..........]  50/100 prompts  12.5/s  0:04 left  batch 8");
}

TEST(ProgressTest, PlainLineHasNoBar) {
  const StageClock clock = Advance({}, Running(bearing::v1::STAGE_SELECT, 0, 100), 1000);
  EXPECT_EQ(PlainLine(clock, Running(bearing::v1::STAGE_SELECT, 25, 100), 1010), "select: 25/100 prompts, 2.5/s, 0:30 left");
}

TEST(ProgressTest, WorkThatWasDoneBeforeDoesNotCountForTheRate) {
  const StageClock clock = Advance({}, Running(bearing::v1::STAGE_SELECT, 90, 100), 1000);
  EXPECT_DOUBLE_EQ(Rate(clock, Running(bearing::v1::STAGE_SELECT, 95, 100), 1010), 0.5);
}

TEST(ProgressTest, NoRateBeforeThereIsOne) {
  const StageClock clock = Advance({}, Running(bearing::v1::STAGE_SELECT, 0, 100), 1000);
  EXPECT_EQ(Rate(clock, Running(bearing::v1::STAGE_SELECT, 10, 100), 1000.1), 0);
  EXPECT_EQ(Rate(clock, Running(bearing::v1::STAGE_SELECT, 0, 100), 1010), 0);
}

TEST(ProgressTest, UnknownTotalShowsTheCountAlone) {
  const StageClock clock = Advance({}, Running(bearing::v1::STAGE_LOAD, 0, 0), 1000);
  EXPECT_EQ(PlainLine(clock, Running(bearing::v1::STAGE_LOAD, 30, 0), 1010), "load: 30 prompts, 3/s");
  EXPECT_EQ(PlainLine(clock, Running(bearing::v1::STAGE_LOAD, 0, 0), 1065), "load: 1:05");
}

TEST(ProgressTest, TheClockStartsAnewWithTheStageOrWhenTheCountGoesBack) {
  StageClock clock = Advance({}, Running(bearing::v1::STAGE_COLLECT, 5, 100), 1000);
  EXPECT_EQ(clock.started, 1000);
  EXPECT_EQ(clock.done_at_start, 5);
  clock = Advance(clock, Running(bearing::v1::STAGE_COLLECT, 50, 100), 1005);
  EXPECT_EQ(clock.started, 1000);
  clock = Advance(clock, Running(bearing::v1::STAGE_SELECT, 7, 100), 1010);
  EXPECT_EQ(clock.started, 1010);
  EXPECT_EQ(clock.done_at_start, 7);
  clock = Advance(clock, Running(bearing::v1::STAGE_SELECT, 0, 100), 1020);
  EXPECT_EQ(clock.started, 1020);
}

TEST(ProgressTest, StatesWithoutAStage) {
  Job job;
  job.set_state(bearing::v1::JOB_STATE_QUEUED);
  EXPECT_EQ(PlainLine(Advance({}, job, 1000), job, 1003), "waiting for workers: 0:03");
  job.set_state(bearing::v1::JOB_STATE_CANCELLING);
  EXPECT_EQ(PlainLine(Advance({}, job, 1000), job, 1003), "cancelling: 0:03");
  job.set_state(bearing::v1::JOB_STATE_RUNNING);
  EXPECT_EQ(PlainLine(Advance({}, job, 1000), job, 1003), "starting: 0:03");
}

TEST(ProgressTest, FormatsClocks) {
  EXPECT_EQ(FormatClock(0), "0:00");
  EXPECT_EQ(FormatClock(59.6), "1:00");
  EXPECT_EQ(FormatClock(754), "12:34");
  EXPECT_EQ(FormatClock(3723), "1:02:03");
  EXPECT_EQ(FormatClock(-5), "0:00");
}

TEST(ProgressTest, CutsByCharacterAndDropsControlCharacters) {
  EXPECT_EQ(CutToWidth("abcdefghij", 10), "abcdefghij");
  EXPECT_EQ(CutToWidth("abcdefghij", 8), "abcde...");
  EXPECT_EQ(CutToWidth("äöüäöüäöü", 6), "äöü...");
  EXPECT_EQ(CutToWidth("a\nb\x1b[2Jc", 20), "a b [2Jc");
  EXPECT_EQ(CutToWidth("abcdef", 2), "ab");
  EXPECT_EQ(CutToWidth("abcdef", 0), "");
}

TEST(ProgressTest, ALongNoteDoesNotWrap) {
  const Job job = Running(bearing::v1::STAGE_COLLECT, 50, 100, std::string(500, 'x'));
  EXPECT_EQ(LiveLine(Advance({}, job, 1000), job, 1004, 79).size(), 79u);
}

TEST(ProgressTest, StageEnds) {
  bearing::v1::StageTime time;
  time.set_stage(bearing::v1::STAGE_COLLECT);
  time.set_seconds(12.34);
  EXPECT_EQ(StageEndLine(time), "collect      12.3 s");
  time.set_resumed(true);
  EXPECT_EQ(StageEndLine(time), "collect      12.3 s  (resumed)");
  time.set_shared(true);
  EXPECT_EQ(StageEndLine(time), "collect      12.3 s  (from another job)");
  time.set_shared(false);
  time.set_resumed(false);
  time.set_tokens(1230);
  EXPECT_EQ(StageEndLine(time), "collect      12.3 s       100 tokens/s");
  time.set_utilization(0.714);
  EXPECT_EQ(StageEndLine(time), "collect      12.3 s       100 tokens/s, 71 % of the product rate");
}

}  // namespace
}  // namespace bearing::cli
