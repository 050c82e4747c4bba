// The calls around a job's life: names, labels, logs, artifacts, deletion, deltas, and what errors tell programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/job_transitions.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "jobs/job_spec.h"
#include "rpc/status_details.h"
#include "tests/coordinator/server_fixture.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::JobsService;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ApiTest : public ServerTest {
 protected:
  absl::Status CreateWithId(const std::string& id, const bearing::v1::JobSpec& spec) {
    grpc::ClientContext context;
    bearing::v1::CreateJobRequest request;
    *request.mutable_spec() = spec;
    request.set_job_id(id);
    bearing::v1::CreateJobResponse response;
    absl::Status status = rpc::FromGrpc(jobs_->CreateJob(&context, request, &response));
    if (status.ok()) {
      EXPECT_EQ(response.job().name(), id);
    }
    return status;
  }

  absl::Status Delete(const std::string& name) {
    grpc::ClientContext context;
    bearing::v1::DeleteJobRequest request;
    request.set_name(name);
    bearing::v1::DeleteJobResponse response;
    return rpc::FromGrpc(jobs_->DeleteJob(&context, request, &response));
  }

  absl::StatusOr<std::vector<std::string>> Logs(const std::string& name, int64_t after = 0, int tail = 0, bool follow = false) {
    grpc::ClientContext context;
    bearing::v1::StreamJobLogsRequest request;
    request.set_name(name);
    request.set_after_number(after);
    request.set_tail(tail);
    request.set_follow(follow);
    auto reader = jobs_->StreamJobLogs(&context, request);
    bearing::v1::StreamJobLogsResponse response;
    std::vector<std::string> lines;
    while (reader->Read(&response)) {
      for (const auto& line : response.lines())
        lines.push_back(absl::StrCat(line.number(), " ", line.rank(), " ", line.text()));
    }
    absl::Status status = rpc::FromGrpc(reader->Finish());
    if (!status.ok()) return status;
    return lines;
  }

  absl::Status Report(const std::string& group, const bearing::v1::Lease& lease, int64_t first,
                      const std::vector<std::string>& texts) {
    grpc::ClientContext context;
    bearing::v1::ReportProgressRequest request;
    request.set_group_id(group);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.set_first_line(first);
    for (const std::string& text : texts) {
      request.add_log_lines()->set_text(text);
      request.mutable_log_lines()->rbegin()->set_rank(1);
    }
    bearing::v1::ReportProgressResponse response;
    return rpc::FromGrpc(workers_->ReportProgress(&context, request, &response));
  }

  absl::Status Exit(const std::string& group, int rank, int signal) {
    grpc::ClientContext context;
    bearing::v1::ReportExitRequest request;
    request.set_group_id(group);
    request.set_rank(rank);
    request.set_signal(signal);
    bearing::v1::ReportExitResponse response;
    return rpc::FromGrpc(workers_->ReportExit(&context, request, &response));
  }
};

TEST_F(ApiTest, AClientMayChooseTheName) {
  Start();
  ASSERT_TRUE(CreateWithId("mine", SpecNamed("a")).ok());
  absl::Status status = CreateWithId("mine", SpecNamed("a"));
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(rpc::ReasonOf(status), "JOB_ID_TAKEN");
  for (const std::string& wrong :
       std::vector<std::string>{"Mine", "-mine", "mine-", "a/b", "a b", "..", std::string(64, 'a')}) {
    status = CreateWithId(wrong, SpecNamed("a"));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong;
    ASSERT_EQ(rpc::FieldsOf(status).field_violations_size(), 1);
    EXPECT_EQ(rpc::FieldsOf(status).field_violations(0).field(), "job_id");
  }
}

TEST_F(ApiTest, ErrorsCarryOneErrorInfoAndTheWrongFields) {
  Start();
  bearing::v1::Job job;
  const grpc::Status refused = Create(SpecNamed("a", 0, ""), "", &job);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "bearing");
  EXPECT_EQ(info.reason(), "INVALID_ARGUMENT");
  google::rpc::BadRequest fields;
  ASSERT_TRUE(details.details(1).UnpackTo(&fields));
  ASSERT_EQ(fields.field_violations_size(), 1);
  EXPECT_EQ(fields.field_violations(0).field(), "model.path");
  EXPECT_EQ(fields.field_violations(0).description(), "must be set");

  const absl::Status missing = rpc::FromGrpc(Get("none", &job));
  EXPECT_EQ(rpc::ReasonOf(missing), "JOB_NOT_FOUND");
}

TEST(StatusDetailsTest, AllViolationsOfAJobComeBack) {
  const absl::Status status = rpc::FromGrpc(rpc::ToGrpc(jobs::ToStatus({{"a.b", "x; y: z"}, {"c", "wrong"}})));
  const google::rpc::BadRequest fields = rpc::FieldsOf(status);
  ASSERT_EQ(fields.field_violations_size(), 2);
  EXPECT_EQ(fields.field_violations(0).field(), "a.b");
  EXPECT_EQ(fields.field_violations(0).description(), "x; y: z");
  EXPECT_EQ(fields.field_violations(1).field(), "c");
}

TEST(StatusDetailsTest, StaysSmallEnoughForATrailer) {
  std::vector<jobs::FieldViolation> many;
  for (int i = 0; i < 1000; ++i) many.push_back({absl::StrCat("field", i), std::string(1000, 'x')});
  const grpc::Status status = rpc::ToGrpc(jobs::ToStatus(many));
  EXPECT_LT(status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
}

TEST_F(ApiTest, ListsByLabel) {
  Start();
  bearing::v1::JobSpec red = SpecNamed("red");
  (*red.mutable_labels())["team"] = "red";
  bearing::v1::Job job;
  ASSERT_TRUE(Create(red, "", &job).ok());
  ASSERT_TRUE(Create(red, "", &job).ok());
  CreateNamed("other");
  grpc::ClientContext context;
  bearing::v1::ListJobsRequest request;
  (*request.mutable_labels())["team"] = "red";
  request.set_page_size(1);
  bearing::v1::ListJobsResponse page;
  ASSERT_TRUE(jobs_->ListJobs(&context, request, &page).ok());
  ASSERT_EQ(page.jobs_size(), 1);
  EXPECT_EQ(page.jobs(0).name(), job.name());
  // The token belongs to the labels.
  request.set_page_token(page.next_page_token());
  grpc::ClientContext next;
  ASSERT_TRUE(jobs_->ListJobs(&next, request, &page).ok());
  EXPECT_EQ(page.jobs_size(), 1);
  request.clear_labels();
  grpc::ClientContext wrong;
  EXPECT_EQ(jobs_->ListJobs(&wrong, request, &page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ApiTest, DeletesWhatHasEnded) {
  Start();
  bearing::v1::Job job;
  ASSERT_TRUE(Create(SpecNamed("a"), kRequestId, &job).ok());
  absl::Status status = Delete(job.name());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(rpc::ReasonOf(status), "JOB_NOT_ENDED");
  ASSERT_TRUE(Cancel(job.name()).ok());
  ASSERT_TRUE(Delete(job.name()).ok());
  EXPECT_EQ(Get(job.name(), &job).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Delete(job.name()).code(), absl::StatusCode::kNotFound);
}

TEST_F(ApiTest, TheLogHasLinesOfWorkersAndCoordinator) {
  Start();
  const std::string name = CreateNamed("a");
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  ASSERT_TRUE(Report("g", lease.lease(), 1, {"one", "two"}).ok());
  // The answer was lost: the same lines again, and a new one.
  ASSERT_TRUE(Report("g", lease.lease(), 1, {"one", "two", "three"}).ok());
  EXPECT_EQ(Report("other", lease.lease(), 1, {"false"}).code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(Complete("g", lease.lease()).ok());
  EXPECT_EQ(Report("g", lease.lease(), 4, {"late"}).code(), absl::StatusCode::kAborted);
  const auto all = Logs(name);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(*all, ElementsAre("1 -1 queued with priority 0", "2 -1 attempt 1 started by group g", "3 1 one", "4 1 two",
                                "5 1 three", "6 -1 succeeded"));
  EXPECT_THAT(Logs(name, 4).value(), ElementsAre("5 1 three", "6 -1 succeeded"));
  EXPECT_THAT(Logs(name, 0, 1).value(), ElementsAre("6 -1 succeeded"));
  EXPECT_EQ(Logs("none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ApiTest, AFollowerOfTheLogGetsEveryLineOnceAndTheEnd) {
  Start();
  const std::string name = CreateNamed("a");
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  absl::StatusOr<std::vector<std::string>> followed = absl::UnknownError("");
  std::thread follower([&] { followed = Logs(name, 0, 0, true); });
  for (int i = 1; i <= 50; ++i) ASSERT_TRUE(Report("g", lease.lease(), i, {absl::StrCat("line ", i)}).ok());
  ASSERT_TRUE(Complete("g", lease.lease()).ok());
  follower.join();
  ASSERT_TRUE(followed.ok()) << followed.status();
  EXPECT_EQ(followed->size(), 53u);
  EXPECT_EQ(*followed, Logs(name).value());
}

TEST_F(ApiTest, DeltasLeaveOutWhatIsKnown) {
  Start();
  const std::string name = CreateNamed("a");
  grpc::ClientContext context;
  bearing::v1::WatchJobRequest request;
  request.set_name(name);
  request.set_deltas(true);
  auto reader = jobs_->WatchJob(&context, request);
  bearing::v1::WatchJobResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.job().spec().name(), "a");
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_FALSE(message.job().has_spec());
  EXPECT_EQ(message.job().plan().ranks_size(), 2);
  bool cancel = false;
  ASSERT_TRUE(Heartbeat("g", lease.lease(), 1, &cancel).ok());
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_FALSE(message.job().has_plan());
  EXPECT_EQ(message.job().progress().done(), 1);
  context.TryCancel();
  reader->Finish();
}

TEST_F(ApiTest, ListsArtifactsOfAFinishedJob) {
  Start();
  bearing::v1::JobSpec spec = SpecNamed("a");
  const std::string out = dir_ / "out";
  std::filesystem::create_directories(out);
  spec.set_output(out);
  bearing::v1::Job job;
  ASSERT_TRUE(Create(spec, "", &job).ok());
  std::ofstream(out + "/manifest.json") << R"({"format": "bearing-manifest/1", "files": [
      {"name": "a.json", "size": 3, "sha256": ")"
                                        << std::string(64, 'a') << R"("},
      {"name": "b/c.bin", "size": 4, "sha256": ")"
                                        << std::string(64, 'b') << R"("}]})";
  bearing::v1::ListArtifactsRequest request;
  request.set_name(job.name());
  bearing::v1::ListArtifactsResponse response;
  {
    grpc::ClientContext context;
    const absl::Status early = rpc::FromGrpc(jobs_->ListArtifacts(&context, request, &response));
    EXPECT_EQ(rpc::ReasonOf(early), "NO_MANIFEST");
  }
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  ASSERT_TRUE(Complete("g", lease.lease()).ok());
  request.set_page_size(1);
  std::vector<std::string> names;
  do {
    grpc::ClientContext context;
    response.Clear();
    const grpc::Status status = jobs_->ListArtifacts(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    for (const auto& artifact : response.artifacts()) names.push_back(artifact.name());
    request.set_page_token(response.next_page_token());
  } while (!response.next_page_token().empty());
  EXPECT_THAT(names, ElementsAre("a.json", "b/c.bin"));
  EXPECT_EQ(response.artifacts(0).size(), 4);
}

TEST_F(ApiTest, AJobThatKillsItsGroupsThreeTimesFailsWithRankSignalAndStage) {
  Start();
  const std::string name = CreateNamed("a");
  for (int attempt = 1; attempt <= 3; ++attempt) {
    bearing::v1::AcquireLeaseResponse lease;
    ASSERT_TRUE(Acquire("g", 5, &lease).ok());
    ASSERT_EQ(lease.lease().attempt(), attempt);
    grpc::ClientContext context;
    bearing::v1::ReportProgressRequest request;
    request.set_group_id("g");
    request.set_job_name(name);
    request.set_attempt(attempt);
    request.mutable_progress()->set_stage(bearing::v1::STAGE_SELECT);
    bearing::v1::ReportProgressResponse response;
    ASSERT_TRUE(workers_->ReportProgress(&context, request, &response).ok());
    ASSERT_TRUE(Exit("g", 1, 9).ok());
  }
  bearing::v1::Job job;
  ASSERT_TRUE(Get(name, &job).ok());
  EXPECT_EQ(job.state(), bearing::v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.error().reason(), "WORKER_GROUP_LOST");
  EXPECT_EQ(job.error().stage(), bearing::v1::STAGE_SELECT);
  EXPECT_THAT(job.error().message(), testing::AllOf(HasSubstr("rank 1"), HasSubstr("signal 9"), HasSubstr("STAGE_SELECT")));
  ASSERT_EQ(job.lost_attempts_size(), 3);
  EXPECT_EQ(job.lost_attempts(1).attempt(), 2);
  EXPECT_EQ(job.lost_attempts(1).rank(), 1);
  EXPECT_EQ(job.lost_attempts(1).signal(), 9);
  // Of a group that holds nothing, or that nobody knows.
  EXPECT_TRUE(Exit("g", 1, 9).ok());
  EXPECT_TRUE(Exit("unknown", 1, 9).ok());
}

TEST_F(ApiTest, WorkersHaveTheirOwnPortWhenAsked) {
  options_.worker_listen = "127.0.0.1:0";
  options_.health_listen = "127.0.0.1:0";
  Start();
  bearing::v1::AcquireLeaseResponse lease;
  EXPECT_EQ(Acquire("g", 0, &lease).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  const std::string name = CreateNamed("a");
  const auto channel =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->worker_port()), grpc::InsecureChannelCredentials());
  workers_ = bearing::v1::WorkerService::NewStub(channel);
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  EXPECT_EQ(lease.lease().job_name(), name);
  jobs_ = JobsService::NewStub(channel);
  bearing::v1::Job job;
  EXPECT_EQ(Get(name, &job).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace bearing::coordinator
