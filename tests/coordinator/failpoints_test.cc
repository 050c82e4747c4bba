// kill -9 of the coordinator before and after each commit: what it has acknowledged is there after the restart, what it has not
// can be asked for again, and no job is finished twice.
//
// One round goes through the whole life of seven jobs. The program dies at the given place (or at a random moment), is started
// again on the same store, and the client goes on as a client does: it asks again, with the same request_id. In the test run
// each place is tried twice; BEARING_FAILPOINT_ROUNDS sets how often.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bearing/v1/jobs_service.grpc.pb.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "coordinator/job_store.h"
#include "coordinator/sqlite.h"
#include "rpc/status_details.h"
#include "tests/coordinator/coordinator_process.h"
#include "tests/coordinator/fakes.h"
#include "tests/coordinator/tiny_job.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::JobsService;
using bearing::v1::WorkerService;

constexpr char kGroup[] = "group";

class Round {
 public:
  explicit Round(std::string failpoint) : failpoint_(std::move(failpoint)) {
    spec_ = WriteTinyJob(dir_ / "job", "tiny");
    Start(failpoint_);
  }

  int deaths() const { return deaths_; }
  double slowest_start() const { return slowest_start_; }

  void Play() {
    for (const char* name : {"done", "failed", "lost", "cancelled-early", "cancelled-late", "waiting", "deleted"}) Create(name);
    Work("done", [&](const bearing::v1::Lease& lease) {
      Report(lease);
      bearing::v1::CompleteRequest request;
      request.mutable_result()->set_layer(3);
      Complete(lease, request);
    });
    Work("failed", [&](const bearing::v1::Lease& lease) {
      bearing::v1::CompleteRequest request;
      request.mutable_error()->set_reason("INTERNAL");
      Complete(lease, request);
    });
    // Its first group is lost, the next one finishes it.
    Work("lost", [&](const bearing::v1::Lease&) {
      bearing::v1::ReportExitRequest request;
      request.set_group_id(kGroup);
      request.set_signal(9);
      Retry([&] { return Call(workers_.get(), &WorkerService::Stub::ReportExit, request); });
    });
    Work("lost", [&](const bearing::v1::Lease& lease) {
      EXPECT_GE(lease.attempt(), 2);
      bearing::v1::CompleteRequest request;
      request.mutable_result()->set_layer(5);
      Complete(lease, request);
    });
    Cancel("cancelled-early");
    Work("cancelled-late", [&](const bearing::v1::Lease& lease) {
      Cancel("cancelled-late");
      bearing::v1::CompleteRequest request;
      request.set_cancelled(true);
      Complete(lease, request);
    });
    Cancel("deleted");
    bearing::v1::DeleteJobRequest request;
    request.set_name("deleted");
    // Asked for again after a death it may be gone already.
    Retry([&] {
      const absl::Status status = Call(jobs_.get(), &JobsService::Stub::DeleteJob, request);
      return absl::IsNotFound(status) ? absl::OkStatus() : status;
    });
    CheckAll();
  }

  void CheckAll() {
    using namespace bearing::v1;  // NOLINT(google-build-using-namespace): the states.
    const std::map<std::string, JobState> wanted = {
        {"done", JOB_STATE_SUCCEEDED},           {"failed", JOB_STATE_FAILED},
        {"lost", JOB_STATE_SUCCEEDED},           {"cancelled-early", JOB_STATE_CANCELLED},
        {"cancelled-late", JOB_STATE_CANCELLED}, {"waiting", JOB_STATE_QUEUED}};
    ListJobsResponse list;
    grpc::ClientContext context;
    ASSERT_TRUE(jobs_->ListJobs(&context, {}, &list).ok());
    std::map<std::string, JobState> found;
    for (const Job& job : list.jobs()) found[job.name()] = job.state();
    EXPECT_EQ(found, wanted) << failpoint_;
    for (const Job& job : list.jobs()) {
      if (job.name() == "done") {
        EXPECT_EQ(job.result().layer(), 3);
      }
      if (job.name() == "lost") {
        EXPECT_EQ(job.result().layer(), 5);
      }
    }
    for (const auto& [name, times] : finished_) EXPECT_EQ(times, 1) << name << " " << failpoint_;
    process_->End(SIGTERM);
    auto database = Database::Open(dir_ / "jobs.db");
    ASSERT_TRUE(database.ok());
    EXPECT_EQ((*database)->QueryText("PRAGMA integrity_check").value(), "ok");
    EXPECT_EQ((*database)->QueryText("SELECT count(*) FROM jobs").value(), "6");
    EXPECT_EQ((*database)->QueryText("SELECT count(*) FROM requests").value(), "6");
  }

 private:
  void Start(const std::string& failpoint) {
    std::filesystem::remove(dir_ / "port");
    const absl::Time begin = absl::Now();
    process_ = std::make_unique<Process>(
        std::vector<std::string>{"--listen", "127.0.0.1:0", "--store", dir_ / "jobs.db", "--port-file", dir_ / "port",
                                 "--max-attempts", "1000"},
        dir_ / "log",
        failpoint.empty() ? std::vector<std::string>{} : std::vector<std::string>{"BEARING_FAILPOINT=" + failpoint});
    ASSERT_TRUE(WaitForPorts(process_.get(), dir_ / "port")) << ReadAll(dir_ / "log");
    slowest_start_ = std::max(slowest_start_, absl::ToDoubleSeconds(absl::Now() - begin));
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", std::stoi(ReadAll(dir_ / "port"))), grpc::InsecureChannelCredentials());
    jobs_ = JobsService::NewStub(channel_);
    workers_ = WorkerService::NewStub(channel_);
  }

  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    return rpc::FromGrpc((stub->*method)(&context, request, response));
  }
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request) {
    Response response;
    return Call(stub, method, request, &response);
  }

  // Until it is answered; a coordinator that died is started again, this time to stay.
  template <typename Ask>
  void Retry(const Ask& ask) {
    for (int tries = 0; tries < 5; ++tries) {
      const absl::Status status = ask();
      if (status.ok()) return;
      ASSERT_TRUE(absl::IsUnavailable(status)) << status << " " << failpoint_;
      int how = 0;
      for (int i = 0; i < 1000 && !process_->Ended(&how); ++i) absl::SleepFor(absl::Milliseconds(2));
      ASSERT_TRUE(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL) << failpoint_ << ReadAll(dir_ / "log");
      ++deaths_;
      Start("");
    }
    FAIL() << "no answer: " << failpoint_;
  }

  void Create(const std::string& name) {
    bearing::v1::CreateJobRequest request;
    *request.mutable_spec() = spec_;
    request.set_job_id(name);
    request.set_request_id(absl::StrFormat("00000000-0000-4000-8000-%012x", ++requests_));
    Retry([&] {
      bearing::v1::CreateJobResponse response;
      const absl::Status status = Call(jobs_.get(), &JobsService::Stub::CreateJob, request, &response);
      if (status.ok()) {
        EXPECT_EQ(response.job().name(), name);
      }
      return status;
    });
  }

  // Jobs are leased in their order, so the next lease is this job's.
  template <typename Body>
  void Work(const std::string& name, const Body& body) {
    bearing::v1::AcquireLeaseRequest request;
    request.mutable_group()->set_id(kGroup);
    request.mutable_group()->set_ranks(1);
    bearing::v1::AcquireLeaseResponse response;
    Retry([&] { return Call(workers_.get(), &WorkerService::Stub::AcquireLease, request, &response); });
    ASSERT_EQ(response.lease().job_name(), name) << failpoint_;
    body(response.lease());
  }

  void Report(const bearing::v1::Lease& lease) {
    bearing::v1::ReportProgressRequest request;
    request.set_group_id(kGroup);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.set_first_line(1);
    request.add_log_lines()->set_text("line");
    // Lines alone, then progress.
    Retry([&] { return Call(workers_.get(), &WorkerService::Stub::ReportProgress, request); });
    request.mutable_progress()->set_done(1);
    Retry([&] { return Call(workers_.get(), &WorkerService::Stub::ReportProgress, request); });
  }

  void Complete(const bearing::v1::Lease& lease, bearing::v1::CompleteRequest request) {
    request.set_group_id(kGroup);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    Retry([&] { return Call(workers_.get(), &WorkerService::Stub::Complete, request); });
    ++finished_[lease.job_name()];
  }

  void Cancel(const std::string& name) {
    bearing::v1::CancelJobRequest request;
    request.set_name(name);
    // Asked for again after a death it may have ended.
    Retry([&] {
      const absl::Status status = Call(jobs_.get(), &JobsService::Stub::CancelJob, request);
      return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;
    });
  }

  const std::string failpoint_;
  TempDir dir_;
  bearing::v1::JobSpec spec_;
  std::unique_ptr<Process> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<JobsService::Stub> jobs_;
  std::unique_ptr<WorkerService::Stub> workers_;
  std::map<std::string, int> finished_;
  int requests_ = 0;
  int deaths_ = 0;
  double slowest_start_ = 0;
};

int Rounds() {
  const char* text = std::getenv("BEARING_FAILPOINT_ROUNDS");
  return text == nullptr ? 2 : std::atoi(text);
}

// Every place, the first time it is come to, the second, ...
TEST(FailpointsTest, WhatIsAcknowledgedOutlivesADeathAtEveryPlace) {
  // How often the play comes to each.
  const std::map<std::string, int> places = {{"insert", 7},           {"update.RUNNING", 6}, {"update.SUCCEEDED", 2},
                                             {"update.FAILED", 1},    {"update.QUEUED", 1},  {"update.CANCELLING", 1},
                                             {"update.CANCELLED", 3}, {"logs", 1},           {"delete", 1}};
  int runs = 0;
  int deaths = 0;
  double slowest = 0;
  for (int round = 0; round < Rounds(); ++round) {
    for (const auto& [place, times] : places) {
      for (const char* when : {"before", "after"}) {
        SCOPED_TRACE(absl::StrCat(place, " ", when, " ", round));
        Round play(absl::StrCat(place, ".", when, ":kill:", 1 + round % times));
        if (HasFatalFailure()) return;
        play.Play();
        ++runs;
        EXPECT_GE(play.deaths(), 1) << "the place was not come to";
        deaths += play.deaths();
        slowest = std::max(slowest, play.slowest_start());
      }
    }
  }
  std::printf("runs=%d deaths=%d slowest_start=%.3f s\n", runs, deaths, slowest);
  RecordProperty("runs", runs);
}

}  // namespace
}  // namespace bearing::coordinator
