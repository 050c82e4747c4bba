// submit, list, describe, watch, cancel and fetch against a real coordinator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Program;
using ::testing::StartsWith;

class ServerCommandsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string port_file = job_.path() + "/port";
    coordinator_ =
        std::make_unique<Program>(std::vector<std::string>{BEARING_COORDINATOR_PROGRAM, "--listen", "127.0.0.1:0", "--store",
                                                           job_.path() + "/jobs.db", "--port-file", port_file},
                                  testing::Environment{}, job_.path());
    for (int i = 0; i < 1500 && !std::filesystem::exists(port_file); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const std::string port = testing::ReadText(port_file);
    ASSERT_NE(port, "") << coordinator_->Errors();
    server_ = "127.0.0.1:" + port.substr(0, port.find('\n'));
  }

  std::unique_ptr<Program> Start(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), BEARING_PROGRAM);
    return std::make_unique<Program>(arguments, testing::Environment{{"BEARING_SERVER", server_}}, job_.path(), input);
  }

  // Runs a command that must succeed; returns its standard output.
  std::string Call(const std::vector<std::string>& arguments) {
    const auto program = Start(arguments);
    EXPECT_EQ(program->Wait(), 0) << program->Errors();
    return program->Output();
  }

  std::string Submit() {
    std::string name = Call({"submit", "-f", job_.job_file()});
    EXPECT_THAT(name, StartsWith("tiny-"));
    if (!name.empty()) name.pop_back();
    EXPECT_EQ(name.find('\n'), std::string::npos);
    return name;
  }

  std::unique_ptr<Program> StartWorker(const std::string& mode) {
    return std::make_unique<Program>(
        std::vector<std::string>{BEARING_FAKE_WORKER, "serve", "--coordinator", server_, "--device", "cpu"},
        testing::Environment{{"FAKE_WORKER", mode}}, job_.path());
  }

  testing::JobFolder job_;
  std::unique_ptr<Program> coordinator_;
  std::string server_;
};

TEST_F(ServerCommandsTest, SubmitPrintsTheNameAndListShowsIt) {
  const std::string name = Submit();
  EXPECT_THAT(Call({"list"}), AllOf(HasSubstr("NAME"), HasSubstr(name), HasSubstr("queued")));
  EXPECT_EQ(Call({"list", "-o", "name"}), name + "\n");
  EXPECT_EQ(Call({"list", "-o", "name", "--state", "running"}), "");
  const nlohmann::json jobs = nlohmann::json::parse(Call({"list", "-o", "json"}), nullptr, false);
  ASSERT_EQ(jobs["jobs"].size(), 1u);
  EXPECT_EQ(jobs["jobs"][0]["name"], name);
  EXPECT_THAT(Call({"describe", name}), AllOf(HasSubstr(job_.path() + "/model"), HasSubstr("next: bearing watch " + name)));
  EXPECT_THAT(Call({"describe", name, "-o", "yaml"}), HasSubstr("state: JOB_STATE_QUEUED\n"));
}

TEST_F(ServerCommandsTest, SubmitReadsStandardInputAndPrintedSpecs) {
  // What `validate -o json` prints is a specification with absolute paths; with the two heading keys it is a job file.
  nlohmann::json spec = nlohmann::json::parse(Call({"validate", "-f", job_.job_file(), "-o", "json"}), nullptr, false);
  ASSERT_TRUE(spec.is_object());
  spec["apiVersion"] = "bearing/v1";
  spec["kind"] = "Job";
  testing::WriteText(job_.path() + "/printed.json", spec.dump());
  const auto submit = Start({"submit", "-f", "-"}, job_.path() + "/printed.json");
  EXPECT_EQ(submit->Wait(), 0) << submit->Errors();
  EXPECT_THAT(submit->Output(), StartsWith("tiny-"));
}

TEST_F(ServerCommandsTest, ARepeatedRequestIdIsTheSameJobAndAnotherBodyAConflict) {
  const std::string id = "6f4f3c1e-54a3-4bb4-9e0c-7d6f1f0a9b11";
  const std::string first = Call({"submit", "-f", job_.job_file(), "--request-id", id});
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--request-id", id}), first);
  const auto other = Start({"submit", "-f", job_.job_file(), "--request-id", id, "--set", "select.kl_max=0.3"});
  EXPECT_EQ(other->Wait(), 6) << other->Errors();
}

TEST_F(ServerCommandsTest, ATimeoutNeedsSomethingToWaitFor) {
  const auto submit = Start({"submit", "-f", job_.job_file(), "--timeout", "1h"});
  EXPECT_EQ(submit->Wait(), 2);
  EXPECT_THAT(submit->Errors(), HasSubstr("--timeout: needs --watch or --wait"));
  EXPECT_EQ(Call({"list", "-o", "name"}), "");
}

TEST_F(ServerCommandsTest, ADryRunSubmitsNothing) {
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--dry-run"}), "");
  EXPECT_EQ(Call({"list", "-o", "name"}), "");
}

TEST_F(ServerCommandsTest, AModelThatCannotRunIsExitCode2) {
  testing::WriteText(job_.path() + "/model/config.json", R"({"model_type": "abacus", "architectures": ["Abacus"]})");
  const auto submit = Start({"submit", "-f", job_.job_file()});
  EXPECT_EQ(submit->Wait(), 2);
  EXPECT_THAT(submit->Errors(), AllOf(HasSubstr("model.path"), HasSubstr("abacus")));
}

TEST_F(ServerCommandsTest, AnUnknownNameIsExitCode3) {
  for (const char* command : {"describe", "watch", "cancel"}) {
    const auto program = Start({command, "no-such-job"});
    EXPECT_EQ(program->Wait(), 3) << command;
    EXPECT_THAT(program->Errors(), HasSubstr("no-such-job"));
  }
}

TEST_F(ServerCommandsTest, CancelledIsExitCode7AndCancellingAgainAConflict) {
  const std::string name = Submit();
  const auto watch = Start({"watch", name});
  ASSERT_TRUE(watch->WaitForError("waiting for workers"));
  EXPECT_EQ(Call({"cancel", name}), name + " cancelled\n");
  EXPECT_EQ(watch->Wait(), 7);
  const auto again = Start({"cancel", name});
  EXPECT_EQ(again->Wait(), 6);
}

TEST_F(ServerCommandsTest, CtrlCInWatchDetaches) {
  const std::string name = Submit();
  const auto watch = Start({"watch", name});
  ASSERT_TRUE(watch->WaitForError("waiting for workers"));
  watch->Signal(SIGINT);
  EXPECT_EQ(watch->Wait(), 130);
  EXPECT_THAT(watch->Errors(), HasSubstr("detached; the job goes on. Look again: bearing watch " + name));
  EXPECT_THAT(Call({"describe", name}), HasSubstr("queued"));
}

TEST_F(ServerCommandsTest, ATimeoutDetachesWithExitCode5) {
  const std::string name = Submit();
  const auto watch = Start({"watch", name, "--timeout", "300ms"});
  EXPECT_EQ(watch->Wait(), 5);
  EXPECT_THAT(watch->Errors(), HasSubstr("not ended after 300ms; the job goes on. Look again: bearing watch " + name));
  const auto wait = Start({"submit", "-f", job_.job_file(), "--wait", "--timeout", "300ms"});
  EXPECT_EQ(wait->Wait(), 5);
  EXPECT_THAT(wait->Output(), StartsWith("tiny-"));
  EXPECT_EQ(Start({"watch", name, "--timeout", "soon"})->Wait(), 2);
  EXPECT_EQ(Start({"watch", name, "--timeout", "0s"})->Wait(), 2);
}

TEST_F(ServerCommandsTest, WaitEndsWithTheJobsCodeAndShowsNoProgress) {
  const auto worker = StartWorker("succeed");
  const auto wait = Start({"submit", "-f", job_.job_file(), "--wait"});
  EXPECT_EQ(wait->Wait(), 0) << wait->Errors();
  EXPECT_THAT(wait->Errors(), AllOf(HasSubstr("layer 15, position -1"), ::testing::Not(HasSubstr("waiting for workers"))));
}

TEST_F(ServerCommandsTest, WatchAndFetchAFinishedJob) {
  const auto worker = StartWorker("succeed");
  const auto submit = Start({"submit", "-f", job_.job_file(), "--watch"});
  EXPECT_EQ(submit->Wait(), 0) << submit->Errors();
  EXPECT_THAT(submit->Errors(), HasSubstr("layer 15, position -1"));
  const std::string name = submit->Output().substr(0, submit->Output().find('\n'));
  EXPECT_EQ(submit->Output(), name + "\n");
  EXPECT_THAT(Call({"watch", name}), HasSubstr("layer 15, position -1"));
  EXPECT_THAT(Call({"describe", name}), AllOf(HasSubstr("succeeded"), HasSubstr("next: bearing fetch " + name)));

  const std::string copy = job_.path() + "/copy";
  EXPECT_EQ(Call({"fetch", name, copy}),
            copy + "/checkpoint/config.json\n" + copy + "/report.html\n" + copy + "/manifest.json\n");
  EXPECT_EQ(testing::ReadText(copy + "/report.html"), "<html>");
  const auto again = Start({"fetch", name, copy});
  EXPECT_EQ(again->Wait(), 6) << again->Errors();
  EXPECT_EQ(Call({"fetch", name, job_.path() + "/part", "--include", "*.html"}), job_.path() + "/part/report.html\n");
}

TEST_F(ServerCommandsTest, LogsAndArtifactsOfAFinishedJobAndThenItsEnd) {
  const std::string name = Submit();
  const auto early = Start({"artifacts", name});
  EXPECT_EQ(early->Wait(), 6) << early->Errors();
  const auto kept = Start({"delete", name});
  EXPECT_EQ(kept->Wait(), 6) << kept->Errors();
  const auto follower = Start({"logs", "-f", name});
  const auto worker = StartWorker("succeed");
  EXPECT_EQ(follower->Wait(), 0) << follower->Errors();
  EXPECT_THAT(follower->Output(), AllOf(HasSubstr("coordinator info queued with priority 0\n"), HasSubstr("attempt 1 started"),
                                        HasSubstr("rank 0 info hello from the fake worker\n"), HasSubstr("succeeded\n")));
  EXPECT_EQ(Call({"logs", name}), follower->Output());
  EXPECT_THAT(Call({"logs", name, "--tail", "1"}), AllOf(HasSubstr("succeeded"), ::testing::Not(HasSubstr("hello"))));
  EXPECT_THAT(Call({"logs", name, "--rank", "0"}), AllOf(HasSubstr("hello"), ::testing::Not(HasSubstr("succeeded"))));
  const nlohmann::json line = nlohmann::json::parse(Call({"logs", name, "--tail", "1", "-o", "json"}), nullptr, false);
  EXPECT_EQ(line["text"], "succeeded");
  EXPECT_EQ(line["rank"], -1);
  EXPECT_THAT(Call({"logs", name, "--tail", "1", "-o", "yaml"}), AllOf(StartsWith("- {"), HasSubstr(R"("text":"succeeded")")));

  EXPECT_THAT(Call({"artifacts", name}), AllOf(HasSubstr("SHA256"), HasSubstr("checkpoint/config.json  2 ")));
  EXPECT_EQ(Call({"artifacts", name, "-o", "name"}), "checkpoint/config.json\nreport.html\n");

  EXPECT_EQ(Call({"delete", name}), name + "\n");
  EXPECT_EQ(Call({"list", "-o", "name"}), "");
  EXPECT_EQ(Start({"delete", name})->Wait(), 3);
  EXPECT_TRUE(std::filesystem::exists(job_.out() + "/manifest.json"));
}

TEST_F(ServerCommandsTest, SubmitTakesANameAPriorityAndLabels) {
  EXPECT_EQ(Call({"submit", "-f", job_.job_file(), "--job-id", "mine", "--priority", "7", "-l", "team=red", "-l", "a.b=c=d"}),
            "mine\n");
  const auto taken = Start({"submit", "-f", job_.job_file(), "--job-id", "mine"});
  EXPECT_EQ(taken->Wait(), 6) << taken->Errors();
  Submit();
  EXPECT_EQ(Call({"list", "-o", "name", "-l", "team=red"}), "mine\n");
  EXPECT_EQ(Call({"list", "-o", "name", "-l", "team=red", "-l", "a.b=c=d"}), "mine\n");
  EXPECT_EQ(Call({"list", "-o", "name", "-l", "team=blue"}), "");
  const nlohmann::json job = nlohmann::json::parse(Call({"describe", "mine", "-o", "json"}), nullptr, false);
  EXPECT_EQ(job["spec"]["priority"], 7);
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"list", "-l", "team"},
                                                                     {"submit", "-f", job_.job_file(), "-l", "=x"},
                                                                     {"submit", "-f", job_.job_file(), "--priority", "101"},
                                                                     {"submit", "-f", job_.job_file(), "--job-id", "No"}}) {
    EXPECT_EQ(Start(arguments)->Wait(), 2) << ::testing::PrintToString(arguments);
  }
}

TEST_F(ServerCommandsTest, AFailedJobIsExitCode1AndHasNothingToFetch) {
  const auto worker = StartWorker("fail");
  const std::string name = Submit();
  const auto watch = Start({"watch", name});
  EXPECT_EQ(watch->Wait(), 1);
  EXPECT_THAT(watch->Errors(), HasSubstr("NO_CANDIDATE"));
  EXPECT_EQ(Start({"submit", "-f", job_.job_file(), "--wait"})->Wait(), 1);
  const auto fetch = Start({"fetch", name, job_.path() + "/copy"});
  EXPECT_EQ(fetch->Wait(), 6);
  EXPECT_FALSE(std::filesystem::exists(job_.path() + "/copy"));
}

TEST_F(ServerCommandsTest, AJobThatKillsItsWorkersFailsWithRankSignalAndStage) {
  const std::string name = Submit();
  Program workers({BEARING_PROGRAM, "workers", "--ranks", "2", "--device", "cpu", "--log", job_.path() + "/workers.log"},
                  {{"BEARING_SERVER", server_},
                   {"BEARING_WORKER", BEARING_FAKE_WORKER},
                   {"BEARING_COORDINATOR", BEARING_COORDINATOR_PROGRAM},
                   {"FAKE_WORKER", "kill"}},
                  job_.path());
  const auto watch = Start({"watch", name});
  EXPECT_EQ(watch->Wait(), 1) << workers.Errors();
  EXPECT_THAT(watch->Errors(),
              AllOf(HasSubstr("WORKER_GROUP_LOST"), HasSubstr("rank 0 was ended by signal 9"), HasSubstr("COLLECT")));
  const nlohmann::json job = nlohmann::json::parse(Call({"describe", name, "-o", "json"}), nullptr, false);
  EXPECT_EQ(job["lostAttempts"].size(), 3u);
  EXPECT_EQ(job["error"]["stage"], "STAGE_COLLECT");
  workers.Signal(SIGTERM);
  EXPECT_EQ(workers.Wait(), 0);
  EXPECT_THAT(workers.LivingAfter(std::chrono::seconds(10)), ::testing::IsEmpty());
}

TEST_F(ServerCommandsTest, VersionNamesTheServers) { EXPECT_THAT(Call({"version"}), HasSubstr("\nserver 0")); }

}  // namespace
}  // namespace bearing
