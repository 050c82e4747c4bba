// The program itself: what it has acknowledged outlives kill -9, and it ends quickly when asked to.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "bearing/v1/jobs_service.grpc.pb.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "tests/coordinator/coordinator_process.h"
#include "tests/coordinator/fakes.h"
#include "tests/coordinator/tiny_job.h"

namespace bearing::coordinator {
namespace {

using std::chrono::milliseconds;

class ProgramTest : public testing::Test {
 protected:
  // Starts the program and connects to it.
  void Start() {
    std::filesystem::remove(dir_ / "port");
    process_ = std::make_unique<Process>(std::vector<std::string>{"--listen", "127.0.0.1:0", "--store", dir_ / "jobs.db",
                                                                  "--port-file", dir_ / "port", "--log-format", "json"},
                                         dir_ / "log");
    for (int i = 0; i < 500 && !std::filesystem::exists(dir_ / "port"); ++i) std::this_thread::sleep_for(milliseconds(20));
    ASSERT_TRUE(std::filesystem::exists(dir_ / "port")) << ReadAll(dir_ / "log");
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", std::stoi(ReadAll(dir_ / "port"))), grpc::InsecureChannelCredentials());
    jobs_ = bearing::v1::JobsService::NewStub(channel_);
  }

  absl::Status Create(const bearing::v1::JobSpec& spec, bearing::v1::Job* job) {
    grpc::ClientContext context;
    bearing::v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    bearing::v1::CreateJobResponse response;
    const grpc::Status status = jobs_->CreateJob(&context, request, &response);
    *job = response.job();
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  bearing::v1::JobState StateOf(const std::string& name) {
    grpc::ClientContext context;
    bearing::v1::GetJobRequest request;
    request.set_name(name);
    bearing::v1::GetJobResponse response;
    const grpc::Status status = jobs_->GetJob(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().state();
  }

  TempDir dir_;
  std::unique_ptr<Process> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<bearing::v1::JobsService::Stub> jobs_;
};

TEST_F(ProgramTest, WhatIsAcknowledgedOutlivesKill9) {
  const bearing::v1::JobSpec spec = WriteTinyJob(dir_ / "job", "tiny");
  std::vector<std::string> names;
  bearing::v1::Lease lease;
  for (int round = 0; round < 5; ++round) {
    Start();
    bearing::v1::Job job;
    const absl::Status status = Create(spec, &job);
    ASSERT_TRUE(status.ok()) << status;
    names.push_back(job.name());
    if (round == 0) {
      grpc::ClientContext context;
      bearing::v1::AcquireLeaseRequest request;
      request.mutable_group()->set_id("group");
      request.mutable_group()->set_ranks(2);
      bearing::v1::AcquireLeaseResponse response;
      ASSERT_TRUE(bearing::v1::WorkerService::NewStub(channel_)->AcquireLease(&context, request, &response).ok());
      lease = response.lease();
      ASSERT_EQ(lease.job_name(), names[0]);
      ASSERT_EQ(lease.plan().ranks_size(), 2);
    }
    process_->End(SIGKILL);
  }
  Start();
  EXPECT_EQ(StateOf(names[0]), bearing::v1::JOB_STATE_RUNNING);
  for (size_t i = 1; i < names.size(); ++i) EXPECT_EQ(StateOf(names[i]), bearing::v1::JOB_STATE_QUEUED);
  // The group that held the lease before five restarts still holds it.
  grpc::ClientContext context;
  bearing::v1::CompleteRequest request;
  request.set_group_id("group");
  request.set_job_name(lease.job_name());
  request.set_attempt(lease.attempt());
  request.mutable_result()->set_layer(1);
  bearing::v1::CompleteResponse response;
  EXPECT_TRUE(bearing::v1::WorkerService::NewStub(channel_)->Complete(&context, request, &response).ok());
  EXPECT_EQ(StateOf(names[0]), bearing::v1::JOB_STATE_SUCCEEDED);
}

TEST_F(ProgramTest, SigtermEndsItQuicklyWithAWatchOpen) {
  Start();
  bearing::v1::Job job;
  ASSERT_TRUE(Create(WriteTinyJob(dir_ / "job", "tiny"), &job).ok());
  grpc::ClientContext context;
  bearing::v1::WatchJobRequest request;
  request.set_name(job.name());
  auto reader = jobs_->WatchJob(&context, request);
  bearing::v1::WatchJobResponse message;
  ASSERT_TRUE(reader->Read(&message));
  const auto start = std::chrono::steady_clock::now();
  const int status = process_->End(SIGTERM);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ProgramTest, AnswersHealthChecks) {
  Start();
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  grpc::TemplatedGenericStub<grpc::health::v1::HealthCheckRequest, grpc::health::v1::HealthCheckResponse> stub(channel_);
  std::promise<grpc::Status> answered;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                 [&answered](grpc::Status status) { answered.set_value(std::move(status)); });
  const grpc::Status status = answered.get_future().get();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

TEST_F(ProgramTest, ASecondOneOnTheSameStoreIsRefused) {
  Start();
  Process second({"--listen", "127.0.0.1:0", "--store", dir_ / "jobs.db"}, dir_ / "second");
  const int status = second.Wait();
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(ReadAll(dir_ / "second"), testing::HasSubstr("in use by another process"));
}

TEST_F(ProgramTest, RefusesPlaintextToOthers) {
  Process process({"--listen", "0.0.0.0:0", "--store", dir_ / "jobs.db"}, dir_ / "log");
  EXPECT_EQ(WEXITSTATUS(process.Wait()), 2);
  EXPECT_THAT(ReadAll(dir_ / "log"), testing::HasSubstr("--insecure-allow-plaintext"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "jobs.db"));
}

TEST(CoordinatorLinkTest, TheProgramNeedsNoTorch) {
  FILE* pipe = popen("ldd " BEARING_COORDINATOR_BINARY, "r");
  ASSERT_NE(pipe, nullptr);
  std::string text(1 << 16, '\0');
  text.resize(fread(text.data(), 1, text.size(), pipe));
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_THAT(text, testing::HasSubstr("libsqlite3"));
  for (const char* name : {"torch", "libc10", "libmpi"}) EXPECT_THAT(text, testing::Not(testing::HasSubstr(name)));
}

}  // namespace
}  // namespace bearing::coordinator
