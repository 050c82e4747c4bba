// Both services over real gRPC, in one process.
#include "coordinator/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/server_fixture.h"

namespace bearing::coordinator {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(ServerTest, CreatesAndFindsAJob) {
  Start();
  bearing::v1::Job created;
  ASSERT_TRUE(Create(SpecNamed("refusal"), kRequestId, &created).ok());
  EXPECT_THAT(created.name(), ::testing::MatchesRegex("refusal-[0-9a-f]{6}|refusal-......"));
  EXPECT_EQ(created.state(), bearing::v1::JOB_STATE_QUEUED);
  EXPECT_EQ(created.spec().model().dtype(), "float32");
  EXPECT_TRUE(created.has_create_time());
  bearing::v1::Job found;
  ASSERT_TRUE(Get(created.name(), &found).ok());
  EXPECT_EQ(found.SerializeAsString(), created.SerializeAsString());
  EXPECT_EQ(Get("none", &found).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, RefusesWhatTheCheckerRefuses) {
  Start();
  bearing::v1::Job job;
  grpc::Status status = Create(SpecNamed("a", 0, ""), "", &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "model.path: must be set");
  status = Create(SpecNamed("a", 0, "/broken"), "", &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("missing tensor"));
  EXPECT_EQ(Create(SpecNamed("a"), "no-uuid", &job).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  bearing::v1::ListJobsResponse list;
  ASSERT_TRUE(List(0, "", bearing::v1::JOB_STATE_UNSPECIFIED, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0);
}

TEST_F(ServerTest, ValidateOnlyCreatesNothing) {
  Start();
  bearing::v1::Job job;
  ASSERT_TRUE(Create(SpecNamed("a"), "", &job, true).ok());
  EXPECT_EQ(job.name(), "");
  EXPECT_EQ(job.spec().model().dtype(), "float32");
  EXPECT_EQ(Create(SpecNamed("a", 0, ""), "", &job, true).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  bearing::v1::ListJobsResponse list;
  ASSERT_TRUE(List(0, "", bearing::v1::JOB_STATE_UNSPECIFIED, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0);
}

TEST_F(ServerTest, ARepeatedRequestIsTheSameJobAlsoAfterARestart) {
  Start();
  bearing::v1::Job first, again;
  ASSERT_TRUE(Create(SpecNamed("a"), kRequestId, &first).ok());
  ASSERT_TRUE(Create(SpecNamed("a"), kRequestId, &again).ok());
  EXPECT_EQ(first.name(), again.name());
  Start();
  ASSERT_TRUE(Create(SpecNamed("a"), kRequestId, &again).ok());
  EXPECT_EQ(first.name(), again.name());
  EXPECT_EQ(Create(SpecNamed("b"), kRequestId, &again).error_code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(ServerTest, ManyRequestsOfOneIdMakeOneJob) {
  Start();
  std::vector<std::string> names(200);
  std::vector<std::thread> threads;
  for (std::string& name : names) {
    threads.emplace_back([this, &name] {
      bearing::v1::Job job;
      const grpc::Status status = Create(SpecNamed("a"), kRequestId, &job);
      name = status.ok() ? job.name() : status.error_message();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 1u) << names.front() << " " << names.back();
  bearing::v1::ListJobsResponse list;
  ASSERT_TRUE(List(0, "", bearing::v1::JOB_STATE_UNSPECIFIED, &list).ok());
  EXPECT_EQ(list.jobs_size(), 1);
}

TEST_F(ServerTest, ListsByPagesNewestFirst) {
  Start();
  for (int i = 0; i < 5; ++i) CreateNamed(absl::StrCat("job", i));
  std::vector<std::string> names;
  std::string token;
  std::vector<int> sizes;
  do {
    bearing::v1::ListJobsResponse page;
    ASSERT_TRUE(List(2, token, bearing::v1::JOB_STATE_QUEUED, &page).ok());
    sizes.push_back(page.jobs_size());
    for (const bearing::v1::Job& job : page.jobs()) names.push_back(job.spec().name());
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_THAT(sizes, ElementsAre(2, 2, 1));
  EXPECT_THAT(names, ElementsAre("job4", "job3", "job2", "job1", "job0"));

  bearing::v1::ListJobsResponse page;
  EXPECT_EQ(List(-1, "", bearing::v1::JOB_STATE_UNSPECIFIED, &page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(List(0, "junk!", bearing::v1::JOB_STATE_UNSPECIFIED, &page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(List(2, "", bearing::v1::JOB_STATE_QUEUED, &page).ok());
  EXPECT_EQ(List(2, page.next_page_token(), bearing::v1::JOB_STATE_FAILED, &page).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  bearing::v1::ListJobsResponse exact;
  ASSERT_TRUE(List(5, "", bearing::v1::JOB_STATE_UNSPECIFIED, &exact).ok());
  EXPECT_EQ(exact.next_page_token(), "");
}

TEST_F(ServerTest, PagesStayBelowTheMessageLimitOfClients) {
  Start();
  bearing::v1::JobSpec spec = SpecNamed("large");
  (*spec.mutable_labels())["text"] = std::string(1 << 20, 'x');
  bearing::v1::Job job;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Create(spec, "", &job).ok());
  int jobs = 0;
  std::string token;
  do {
    bearing::v1::ListJobsResponse page;
    grpc::Status status = List(0, token, bearing::v1::JOB_STATE_UNSPECIFIED, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    jobs += page.jobs_size();
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(jobs, 5);
}

TEST_F(ServerTest, WatchShowsEveryStateAndEnds) {
  Start();
  const std::string name = CreateNamed("a");
  Watch watch(jobs_.get(), name);
  ASSERT_TRUE(watch.Read());
  EXPECT_EQ(watch.message.job().state(), bearing::v1::JOB_STATE_QUEUED);
  int64_t sequence = watch.message.sequence();
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 5, &lease).ok());
  EXPECT_EQ(lease.lease().job_name(), name);
  bool cancel = false;
  for (int i = 1; i <= 20; ++i) ASSERT_TRUE(Heartbeat("g", lease.lease(), i, &cancel).ok());
  ASSERT_TRUE(Complete("g", lease.lease()).ok());
  std::vector<bearing::v1::JobState> states;
  while (watch.Read()) {
    EXPECT_GT(watch.message.sequence(), sequence);
    sequence = watch.message.sequence();
    if (states.empty() || states.back() != watch.message.job().state()) states.push_back(watch.message.job().state());
  }
  EXPECT_TRUE(watch.Finish().ok());
  EXPECT_THAT(states, ElementsAre(bearing::v1::JOB_STATE_RUNNING, bearing::v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(watch.message.job().result().layer(), 3);
}

TEST_F(ServerTest, WatchGoesOnAfterASequence) {
  Start();
  const std::string name = CreateNamed("a");
  int64_t sequence = 0;
  {
    Watch watch(jobs_.get(), name);
    ASSERT_TRUE(watch.Read());
    sequence = watch.message.sequence();
  }
  Watch same(jobs_.get(), name, sequence);
  ASSERT_TRUE(Cancel(name).ok());
  ASSERT_TRUE(same.Read());
  EXPECT_GT(same.message.sequence(), sequence);
  EXPECT_EQ(same.message.job().state(), bearing::v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(same.Read());
  EXPECT_TRUE(same.Finish().ok());

  // What came in between is shown at once; what is known is not repeated, and an ended job ends the stream.
  Watch behind(jobs_.get(), name, sequence);
  ASSERT_TRUE(behind.Read());
  EXPECT_EQ(behind.message.job().state(), bearing::v1::JOB_STATE_CANCELLED);
  Watch known(jobs_.get(), name, same.message.sequence());
  EXPECT_FALSE(known.Read());
  EXPECT_TRUE(known.Finish().ok());
}

TEST_F(ServerTest, WatchOfAnUnknownJobIsNotFound) {
  Start();
  Watch watch(jobs_.get(), "none");
  EXPECT_FALSE(watch.Read());
  EXPECT_EQ(watch.Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, WatchSaysThatItLives) {
  options_.jobs.watch_keepalive = milliseconds(100);
  Start();
  const std::string name = CreateNamed("a");
  Watch watch(jobs_.get(), name);
  ASSERT_TRUE(watch.Read());
  const int64_t sequence = watch.message.sequence();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(watch.Read());
    EXPECT_TRUE(watch.message.keepalive());
    EXPECT_EQ(watch.message.sequence(), sequence);
    EXPECT_FALSE(watch.message.has_job());
  }
}

TEST_F(ServerTest, WatchesAreCounted) {
  options_.max_watches = 1;
  Start();
  const std::string name = CreateNamed("a");
  auto first = std::make_unique<Watch>(jobs_.get(), name);
  ASSERT_TRUE(first->Read());
  {
    Watch second(jobs_.get(), name);
    EXPECT_FALSE(second.Read());
    EXPECT_EQ(second.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  first.reset();
  // The place is free again as soon as the server has noticed.
  bool again = false;
  for (int i = 0; i < 100 && !again; ++i) {
    Watch third(jobs_.get(), name);
    again = third.Read();
    if (!again) std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_TRUE(again);
}

TEST_F(ServerTest, CancelReachesTheWorker) {
  Start();
  const std::string name = CreateNamed("a");
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("g", 0, &lease).ok());
  ASSERT_TRUE(Cancel(name).ok());
  bool cancel = false;
  ASSERT_TRUE(Heartbeat("g", lease.lease(), 1, &cancel).ok());
  EXPECT_TRUE(cancel);
  ASSERT_TRUE(Complete("g", lease.lease()).ok());
  EXPECT_EQ(Cancel(name).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Cancel("none").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, AcquireWaitsForAJob) {
  Start();
  auto start = std::chrono::steady_clock::now();
  bearing::v1::AcquireLeaseResponse none;
  ASSERT_TRUE(Acquire("g", 1, &none).ok());
  EXPECT_FALSE(none.has_lease());
  EXPECT_GE(SecondsSince(start), 0.9);

  start = std::chrono::steady_clock::now();
  bearing::v1::AcquireLeaseResponse some;
  std::thread waiting([&] { EXPECT_TRUE(Acquire("g", 20, &some).ok()); });
  std::this_thread::sleep_for(milliseconds(300));
  const std::string name = CreateNamed("a");
  waiting.join();
  EXPECT_EQ(some.lease().job_name(), name);
  EXPECT_EQ(some.lease().plan().ranks_size(), 2);
  EXPECT_LT(SecondsSince(start), 5);
}

TEST_F(ServerTest, AcquireChecksTheGroup) {
  Start();
  bearing::v1::AcquireLeaseResponse response;
  EXPECT_EQ(Acquire("", 0, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Acquire("g", 0, &response, 0).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Acquire("g", -1, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, AnExpiredLeaseGoesToAnotherGroup) {
  options_.scheduler.lease_time = std::chrono::seconds(1);
  Start();
  CreateNamed("a");
  bearing::v1::AcquireLeaseResponse first, second;
  ASSERT_TRUE(Acquire("g1", 0, &first).ok());
  ASSERT_TRUE(Acquire("g2", 10, &second).ok());
  ASSERT_TRUE(second.has_lease());
  EXPECT_EQ(second.lease().attempt(), 2);
  bool cancel = false;
  EXPECT_EQ(Heartbeat("g1", first.lease(), 1, &cancel).error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Complete("g1", first.lease()).error_code(), grpc::StatusCode::ABORTED);
}

TEST_F(ServerTest, StopsAtOnceWithWatchesAndPollsOpen) {
  Start();
  const std::string name = CreateNamed("a");
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(Acquire("holder", 0, &lease).ok());
  std::vector<std::unique_ptr<Watch>> watches;
  for (int i = 0; i < 50; ++i) {
    watches.push_back(std::make_unique<Watch>(jobs_.get(), name));
    ASSERT_TRUE(watches.back()->Read());
  }
  std::thread poll([this] {
    bearing::v1::AcquireLeaseResponse none;
    EXPECT_EQ(Acquire("g", 60, &none).error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  std::this_thread::sleep_for(milliseconds(200));
  const auto start = std::chrono::steady_clock::now();
  server_->Stop();
  EXPECT_LT(SecondsSince(start), 2);
  poll.join();
  for (auto& watch : watches) {
    EXPECT_FALSE(watch->Read());
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

TEST_F(ServerTest, SaysItsVersion) {
  Start();
  grpc::ClientContext context;
  bearing::v1::GetVersionResponse response;
  ASSERT_TRUE(jobs_->GetVersion(&context, {}, &response).ok());
  EXPECT_EQ(response.version(), "1.2.3");
}

TEST_F(ServerTest, RefusesAPortThatIsTaken) {
  Start();
  ServerOptions other = options_;
  other.listen = absl::StrCat("127.0.0.1:", server_->port());
  other.store_path = dir_ / "other.db";
  auto second = Server::Start(other, &checker_, &clock_, Counting(), &logger_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace bearing::coordinator
