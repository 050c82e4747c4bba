// `bearing run` with the real coordinator, real mpirun and a fake worker: whatever happens, the exit code says it and no
// process is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/mpirun.h"
#include "jobs/artifacts.h"
#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::Program;

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cli::FindMpirun().ok()) GTEST_SKIP() << "mpirun is not installed";
  }

  std::unique_ptr<Program> Start(const std::string& worker_mode, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {BEARING_PROGRAM, "run", job_.job_file()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return std::make_unique<Program>(arguments,
                                     testing::Environment{{"BEARING_WORKER", BEARING_FAKE_WORKER},
                                                          {"BEARING_COORDINATOR", BEARING_COORDINATOR_PROGRAM},
                                                          // For another server: this one is loopback's own.
                                                          {"BEARING_CA_FILE", "/nowhere"},
                                                          {"BEARING_TOKEN_FILE", "/nowhere"},
                                                          {"FAKE_WORKER", worker_mode}},
                                     job_.path());
  }

  testing::JobFolder job_;
};

TEST_F(RunTest, ShowsStagesAndTheResult) {
  const auto run = Start("succeed");
  EXPECT_EQ(run->Wait(), 0) << run->Errors();
  EXPECT_THAT(run->Living(), IsEmpty());
  EXPECT_THAT(run->Errors(), HasSubstr("collect       1.5 s  (resumed)\n"));
  EXPECT_THAT(run->Errors(), HasSubstr("select        1.5 s\n"));
  EXPECT_THAT(run->Output(), HasSubstr("layer 15, position -1"));
  EXPECT_THAT(run->Output(), HasSubstr("96.0 % -> 2.0 %"));
  EXPECT_THAT(run->Output(), HasSubstr(job_.out() + "/report.html"));
  EXPECT_THAT(run->Output(), HasSubstr(job_.out() + "/checkpoint"));
  EXPECT_TRUE(std::filesystem::exists(job_.out() + "/.bearing/service/worker.log"));
  EXPECT_TRUE(std::filesystem::exists(job_.out() + "/.bearing/service/coordinator.log"));
}

TEST_F(RunTest, HandsTheDeviceToTheWorkers) {
  for (const char* device : {"", "cpu"}) {
    const auto run = Start("fail", *device != 0 ? std::vector<std::string>{"--device", device} : std::vector<std::string>());
    EXPECT_EQ(run->Wait(), 1) << run->Errors();
    EXPECT_THAT(run->Errors(), HasSubstr("worker.log"));
    const auto log = jobs::ReadFile(job_.out() + "/.bearing/service/worker.log");
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_THAT(*log, HasSubstr(std::string("fake worker: device=") + (*device != 0 ? device : "auto")));
  }
  const auto wrong = Start("fail", {"--device", "tpu"});
  EXPECT_EQ(wrong->Wait(), 2);
  EXPECT_THAT(wrong->Errors(), HasSubstr("--device"));
}

TEST_F(RunTest, WritesJsonToStandardOutputAlone) {
  const auto run = Start("succeed", {"-o", "json", "--no-progress", "--ranks", "1", "--out", job_.path() + "/elsewhere"});
  EXPECT_EQ(run->Wait(), 0) << run->Errors();
  EXPECT_EQ(run->Errors(), "");
  const nlohmann::json job = nlohmann::json::parse(run->Output(), nullptr, false);
  ASSERT_TRUE(job.is_object()) << run->Output();
  EXPECT_EQ(job["state"], "JOB_STATE_SUCCEEDED");
  EXPECT_EQ(job["spec"]["ranks"], 1);
  EXPECT_EQ(job["spec"]["output"], job_.path() + "/elsewhere");
  EXPECT_EQ(job["result"]["layer"], 15);
}

TEST_F(RunTest, AFailedJobIsExitCode1WithItsReason) {
  const auto run = Start("fail");
  EXPECT_EQ(run->Wait(), 1);
  EXPECT_THAT(run->Living(), IsEmpty());
  EXPECT_THAT(run->Errors(), HasSubstr("select: NO_CANDIDATE: no candidate passes; the best one misses kl_max by 0.02"));
  EXPECT_THAT(run->Errors(), HasSubstr("worker.log"));
  EXPECT_EQ(run->Output(), "");
}

TEST_F(RunTest, ADeadWorkerGroupIsExitCode1WithTheEndOfItsLog) {
  const auto run = Start("die");
  EXPECT_EQ(run->Wait(), 1);
  EXPECT_THAT(run->Living(), IsEmpty());
  EXPECT_THAT(run->Errors(), HasSubstr("the worker group ended before the job did (exit status 3)"));
  EXPECT_THAT(run->Errors(), HasSubstr("fake worker: out of luck"));
  EXPECT_THAT(run->Errors(), HasSubstr("resumes from the last finished stage"));

  const auto again = Start("succeed");
  EXPECT_EQ(again->Wait(), 0) << again->Errors();
  EXPECT_THAT(again->Living(), IsEmpty());
}

TEST_F(RunTest, CtrlCCancelsTheJob) {
  const auto run = Start("hang");
  ASSERT_TRUE(run->WaitForError("collect")) << run->Errors();
  run->Signal(SIGINT);
  EXPECT_EQ(run->Wait(), 130);
  EXPECT_THAT(run->Living(), IsEmpty());
  EXPECT_THAT(run->Errors(), HasSubstr("cancelling the job"));
  const std::string log = testing::ReadText(job_.out() + "/.bearing/service/coordinator.log");
  EXPECT_THAT(log, HasSubstr("JOB_STATE_CANCELLED"));
}

TEST_F(RunTest, ASecondCtrlCDoesNotWaitForTheWorkers) {
  const auto run = Start("deaf");
  ASSERT_TRUE(run->WaitForError("collect")) << run->Errors();
  run->Signal(SIGINT);
  ASSERT_TRUE(run->WaitForError("Ctrl-C again"));
  run->Signal(SIGINT);
  EXPECT_EQ(run->Wait(), 130);
  EXPECT_THAT(run->Living(), IsEmpty());
}

TEST_F(RunTest, NothingOutlivesKill9) {
  const auto run = Start("hang");
  ASSERT_TRUE(run->WaitForError("collect")) << run->Errors();
  EXPECT_THAT(run->Living(), Not(IsEmpty()));
  run->Signal(SIGKILL);
  EXPECT_EQ(run->Wait(), 128 + SIGKILL);
  EXPECT_THAT(run->LivingAfter(std::chrono::seconds(20)), IsEmpty());
}

TEST_F(RunTest, TheSameOutputTwiceAtOnceIsAConflict) {
  const auto first = Start("hang");
  ASSERT_TRUE(first->WaitForError("collect")) << first->Errors();
  const auto second = Start("succeed");
  EXPECT_EQ(second->Wait(), 6);
  EXPECT_THAT(second->Errors(), HasSubstr("another `bearing run` uses this output folder"));
  first->Signal(SIGTERM);
  EXPECT_EQ(first->Wait(), 130);
}

TEST_F(RunTest, AFinishedOutputIsNotTouchedAgain) {
  const auto first = Start("succeed");
  ASSERT_EQ(first->Wait(), 0) << first->Errors();
  const auto second = Start("succeed");
  EXPECT_EQ(second->Wait(), 2);
  EXPECT_THAT(second->Errors(), HasSubstr("finished run"));
}

TEST_F(RunTest, AWrongJobStartsNothingAndLeavesNothing) {
  std::filesystem::remove(job_.path() + "/positive-test.txt");
  const auto run = Start("succeed");
  EXPECT_EQ(run->Wait(), 2);
  EXPECT_THAT(run->Errors(), HasSubstr("prompts.positive.test.file"));
  EXPECT_FALSE(std::filesystem::exists(job_.out()));
}

TEST_F(RunTest, ATruncatedModelStartsNothing) {
  const std::string weights = job_.path() + "/model/model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  const auto run = Start("succeed");
  EXPECT_EQ(run->Wait(), 2);
  EXPECT_THAT(run->Errors(), HasSubstr("model.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(job_.out()));
}

TEST_F(RunTest, TooManyRanksForTheModelStartNothing) {
  const auto run = Start("succeed", {"--ranks", "64"});
  EXPECT_EQ(run->Wait(), 2);
  EXPECT_THAT(run->Errors(), HasSubstr("64"));
  EXPECT_FALSE(std::filesystem::exists(job_.out()));
}

TEST_F(RunTest, AMissingWorkerIsOneClearLine) {
  Program run({BEARING_PROGRAM, "run", job_.job_file()}, {{"BEARING_WORKER", "/nowhere/worker"}}, job_.path());
  EXPECT_EQ(run.Wait(), 1);
  EXPECT_EQ(run.Errors(), "bearing: BEARING_WORKER does not name a program: /nowhere/worker\n");
}

TEST_F(RunTest, AMissingMpirunSaysWhatToInstall) {
  Program run({BEARING_PROGRAM, "run", job_.job_file()}, {{"BEARING_WORKER", BEARING_FAKE_WORKER}, {"PATH", "/nowhere"}},
              job_.path());
  EXPECT_EQ(run.Wait(), 1);
  EXPECT_THAT(run.Errors(), HasSubstr("install Open MPI"));
}

}  // namespace
}  // namespace bearing
