// A coordinator in this process and its clients over real gRPC.
#ifndef BEARING_TESTS_COORDINATOR_SERVER_FIXTURE_H_
#define BEARING_TESTS_COORDINATOR_SERVER_FIXTURE_H_

#include <grpcpp/create_channel.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "bearing/v1/jobs_service.grpc.pb.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "coordinator/server.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {

using ServiceStub = bearing::v1::JobsService::Stub;

inline constexpr char kRequestId[] = "0b6e4f7c-93c5-4a53-9f5c-2f1d0a3c7e11";

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options_.listen = "127.0.0.1:0";
    options_.store_path = dir_ / "jobs.db";
    options_.jobs.version = "1.2.3";
  }
  ~ServerTest() override {
    if (server_ != nullptr) server_->Stop();
  }

  void Start() {
    server_.reset();
    auto server = Server::Start(options_, &checker_, &clock_, Counting(), &logger_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials());
    jobs_ = bearing::v1::JobsService::NewStub(channel_);
    workers_ = bearing::v1::WorkerService::NewStub(channel_);
  }

  grpc::Status Create(const bearing::v1::JobSpec& spec, const std::string& request_id, bearing::v1::Job* job,
                      bool validate_only = false) {
    grpc::ClientContext context;
    bearing::v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(request_id);
    request.set_validate_only(validate_only);
    bearing::v1::CreateJobResponse response;
    grpc::Status status = jobs_->CreateJob(&context, request, &response);
    *job = response.job();
    return status;
  }

  std::string CreateNamed(const std::string& name) {
    bearing::v1::Job job;
    grpc::Status status = Create(SpecNamed(name), "", &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job.name();
  }

  grpc::Status Get(const std::string& name, bearing::v1::Job* job) {
    grpc::ClientContext context;
    bearing::v1::GetJobRequest request;
    request.set_name(name);
    bearing::v1::GetJobResponse response;
    grpc::Status status = jobs_->GetJob(&context, request, &response);
    *job = response.job();
    return status;
  }

  grpc::Status Cancel(const std::string& name) {
    grpc::ClientContext context;
    bearing::v1::CancelJobRequest request;
    request.set_name(name);
    bearing::v1::CancelJobResponse response;
    return jobs_->CancelJob(&context, request, &response);
  }

  grpc::Status List(int page_size, const std::string& token, bearing::v1::JobState state,
                    bearing::v1::ListJobsResponse* response) {
    grpc::ClientContext context;
    bearing::v1::ListJobsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    request.set_state(state);
    return jobs_->ListJobs(&context, request, response);
  }

  grpc::Status Acquire(const std::string& group, int wait_seconds, bearing::v1::AcquireLeaseResponse* response, int ranks = 2) {
    grpc::ClientContext context;
    bearing::v1::AcquireLeaseRequest request;
    request.mutable_group()->set_id(group);
    request.mutable_group()->set_ranks(ranks);
    request.mutable_group()->set_memory_bytes_per_rank(1'000'000);
    request.set_wait_seconds(wait_seconds);
    return workers_->AcquireLease(&context, request, response);
  }

  grpc::Status Heartbeat(const std::string& group, const bearing::v1::Lease& lease, int64_t done, bool* cancel) {
    grpc::ClientContext context;
    bearing::v1::HeartbeatRequest request;
    request.set_group_id(group);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.mutable_progress()->set_done(done);
    bearing::v1::HeartbeatResponse response;
    grpc::Status status = workers_->Heartbeat(&context, request, &response);
    *cancel = response.cancel();
    return status;
  }

  grpc::Status Complete(const std::string& group, const bearing::v1::Lease& lease) {
    grpc::ClientContext context;
    bearing::v1::CompleteRequest request;
    request.set_group_id(group);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.mutable_result()->set_layer(3);
    bearing::v1::CompleteResponse response;
    return workers_->Complete(&context, request, &response);
  }

  // One open watch, closed with the object.
  struct Watch {
    Watch(ServiceStub* stub, const std::string& name, int64_t after = 0) {
      bearing::v1::WatchJobRequest request;
      request.set_name(name);
      request.set_after_sequence(after);
      reader = stub->WatchJob(&context, request);
    }
    ~Watch() {
      context.TryCancel();
      bearing::v1::WatchJobResponse rest;
      while (!over && reader->Read(&rest)) {
      }
      if (!over) reader->Finish();
    }
    bool Read() { return reader->Read(&message); }
    grpc::Status Finish() {
      over = true;
      return reader->Finish();
    }
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<bearing::v1::WatchJobResponse>> reader;
    bearing::v1::WatchJobResponse message;
    bool over = false;
  };

  TempDir dir_;
  SystemClock clock_;
  FakeChecker checker_;
  spdlog::logger logger_ = NullLogger();
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<bearing::v1::JobsService::Stub> jobs_;
  std::unique_ptr<bearing::v1::WorkerService::Stub> workers_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_TESTS_COORDINATOR_SERVER_FIXTURE_H_
