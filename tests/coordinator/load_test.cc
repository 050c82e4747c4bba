// Many jobs, many clients: the figures of docs/reliability.md as limits. Prints what it measured.
//
// The store is filled directly, the program serves it, the clients are in this process. BEARING_LOAD_JOBS sets the length of
// the queue (default 10,000).
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bearing/v1/jobs_service.grpc.pb.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "coordinator/job_columns.h"
#include "coordinator/job_store.h"
#include "coordinator/job_transitions.h"
#include "coordinator/sqlite.h"
#include "tests/coordinator/coordinator_process.h"
#include "tests/coordinator/fakes.h"
#include "tests/coordinator/tiny_job.h"

namespace bearing::coordinator {
namespace {

// Sanitizers take memory of their own.
#if defined(__has_feature)
constexpr int64_t kMostMebibytes = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ? 2048 : 256;
#else
constexpr int64_t kMostMebibytes = 256;
#endif

using bearing::v1::JobsService;
using bearing::v1::WorkerService;

// Of one kind of call, in milliseconds.
class Times {
 public:
  template <typename Call>
  void Measure(const Call& call) {
    const absl::Time begin = absl::Now();
    call();
    all_.push_back(absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
  double Quantile(double q) {
    std::sort(all_.begin(), all_.end());
    return all_[std::min(all_.size() - 1, static_cast<size_t>(q * static_cast<double>(all_.size())))];
  }
  std::string Text() { return absl::StrFormat("p50=%.2f p99=%.2f ms (%d)", Quantile(0.5), Quantile(0.99), all_.size()); }

 private:
  std::vector<double> all_;
};

class LoadTest : public ::testing::Test {
 protected:
  // Queued jobs, in one transaction.
  void Fill(int count) {
    JobStore::Open(dir_ / "jobs.db").value().reset();
    auto database = Database::Open(dir_ / "jobs.db").value();
    auto transaction = Transaction::Begin(database.get()).value();
    Statement insert = database
                           ->Prepare(
                               "INSERT INTO jobs (name, state, ranks, attempt, sequence, group_id, job, priority, "
                               "queued_ms, model_key) VALUES (?, 1, 64, 0, 1, '', ?, ?, 1000, ?)")
                           .value();
    for (int i = 0; i < count; ++i) {
      bearing::v1::JobSpec spec = spec_;
      spec.set_priority(i % 5);
      spec.set_ranks(64);
      const bearing::v1::Job job = MakeQueued(absl::StrCat("job-", i), spec, WallTime(std::chrono::seconds(1)));
      const std::string name = job.name();
      const std::string blob = job.SerializeAsString();
      const std::string key = ModelKey(spec);
      insert.Reset();
      insert.BindText(1, name).BindBlob(2, blob).Bind(3, spec.priority()).BindText(4, key);
      ASSERT_TRUE(insert.Step().ok());
    }
    ASSERT_TRUE(transaction->Commit().ok());
  }

  // Returns the seconds until it serves.
  double Start() {
    std::filesystem::remove(dir_ / "port");
    const absl::Time begin = absl::Now();
    process_ = std::make_unique<Process>(
        std::vector<std::string>{"--listen", "127.0.0.1:0", "--store", dir_ / "jobs.db", "--port-file", dir_ / "port"},
        dir_ / "log");
    EXPECT_TRUE(WaitForPorts(process_.get(), dir_ / "port")) << ReadAll(dir_ / "log");
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", std::stoi(ReadAll(dir_ / "port"))), grpc::InsecureChannelCredentials());
    jobs_ = JobsService::NewStub(channel_);
    workers_ = WorkerService::NewStub(channel_);
    bearing::v1::GetVersionResponse version;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    EXPECT_TRUE(jobs_->GetVersion(&context, {}, &version).ok());
    return absl::ToDoubleSeconds(absl::Now() - begin);
  }

  int64_t ResidentMebibytes() {
    std::istringstream lines(ReadAll(absl::StrCat("/proc/", process_->pid(), "/status")));
    for (std::string line; std::getline(lines, line);) {
      if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) / 1024;
    }
    return -1;
  }

  grpc::Status List(const std::string& token, bearing::v1::ListJobsResponse* page) {
    grpc::ClientContext context;
    bearing::v1::ListJobsRequest request;
    request.set_page_token(token);
    page->Clear();
    return jobs_->ListJobs(&context, request, page);
  }

  grpc::Status Create(const bearing::v1::CreateJobRequest& request, bearing::v1::CreateJobResponse* response) {
    grpc::ClientContext context;
    return jobs_->CreateJob(&context, request, response);
  }

  TempDir dir_;
  bearing::v1::JobSpec spec_ = WriteTinyJob(dir_ / "job", "tiny");
  std::unique_ptr<Process> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<JobsService::Stub> jobs_;
  std::unique_ptr<WorkerService::Stub> workers_;
};

int QueueLength() {
  const char* text = std::getenv("BEARING_LOAD_JOBS");
  return text == nullptr ? 10'000 : std::atoi(text);
}

TEST_F(LoadTest, ServesSoonAfterAKill) {
  Fill(1000);
  const double small = Start();
  process_->End(SIGKILL);
  const double small_again = Start();
  process_->End(SIGKILL);
  std::filesystem::remove(dir_ / "jobs.db");
  std::filesystem::remove(dir_ / "jobs.db-wal");
  std::filesystem::remove(dir_ / "jobs.db-shm");
  Fill(QueueLength());
  Start();
  process_->End(SIGKILL);
  const double large = Start();
  std::printf("serving after %.3f s (again %.3f s) with 1000 jobs, %.3f s with %d\n", small, small_again, large, QueueLength());
  EXPECT_LT(small_again, 2);
  EXPECT_LT(large, 10);
}

TEST_F(LoadTest, ALongQueueIsListedAndGrowsQuickly) {
  Fill(QueueLength());
  Start();
  // Calls that do nothing, in between: how long a call takes on this machine just now, whatever the queue. The limits are those
  // of an idle machine on top of that.
  Times nothing;
  const auto idle = [&] {
    nothing.Measure([&] {
      grpc::ClientContext context;
      bearing::v1::GetVersionResponse version;
      ASSERT_TRUE(jobs_->GetVersion(&context, {}, &version).ok());
    });
  };
  Times list;
  int jobs = 0;
  std::string token;
  bearing::v1::ListJobsResponse page;
  do {
    list.Measure([&] { ASSERT_TRUE(List(token, &page).ok()); });
    token = page.next_page_token();
    jobs += page.jobs_size();
    idle();
  } while (!token.empty());
  EXPECT_EQ(jobs, QueueLength());
  for (int i = 0; i < 100; ++i) list.Measure([&] { ASSERT_TRUE(List("", &page).ok()); });
  Times create;
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = spec_;
  bearing::v1::CreateJobResponse response;
  for (int i = 0; i < 200; ++i) {
    create.Measure([&] { ASSERT_TRUE(Create(request, &response).ok()); });
    idle();
  }
  // A group that none of the queued jobs suits looks through all of them.
  Times lease;
  for (int i = 0; i < 100; ++i) {
    lease.Measure([&] {
      grpc::ClientContext context;
      bearing::v1::AcquireLeaseRequest ask;
      ask.mutable_group()->set_id(absl::StrCat("g", i));
      ask.mutable_group()->set_ranks(3);
      bearing::v1::AcquireLeaseResponse answer;
      ASSERT_TRUE(workers_->AcquireLease(&context, ask, &answer).ok());
      EXPECT_TRUE(answer.has_lease());
    });
  }
  const int64_t resident = ResidentMebibytes();
  std::printf("calls that do nothing %s\n", nothing.Text().c_str());
  std::printf("queue of %d: list %s, create %s, lease %s, resident %ld MiB\n", QueueLength(), list.Text().c_str(),
              create.Text().c_str(), lease.Text().c_str(), static_cast<long>(resident));
  EXPECT_LT(list.Quantile(0.99), 50 + nothing.Quantile(0.99));
  EXPECT_LT(create.Quantile(0.99), 100 + nothing.Quantile(0.99));
  EXPECT_LT(resident, kMostMebibytes);
}

TEST_F(LoadTest, AThousandSubmitsOfOneRequestAreOneJob) {
  Start();
  constexpr int kRequests = 1000;
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = spec_;
  request.set_request_id("0b6e4f7c-93c5-4a53-9f5c-2f1d0a3c7e11");
  std::vector<grpc::ClientContext> contexts(kRequests);
  std::vector<bearing::v1::CreateJobResponse> responses(kRequests);
  std::vector<grpc::Status> statuses(kRequests);
  std::atomic<int> left(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    contexts[i].set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    jobs_->async()->CreateJob(&contexts[i], &request, &responses[i], [&, i](grpc::Status status) {
      statuses[i] = std::move(status);
      --left;
    });
  }
  while (left > 0) absl::SleepFor(absl::Milliseconds(5));
  std::set<std::string> names;
  int refused = 0;
  for (int i = 0; i < kRequests; ++i) {
    if (statuses[i].ok()) {
      names.insert(responses[i].job().name());
      continue;
    }
    // A server that has no thread left says so; the client asks again.
    ASSERT_EQ(statuses[i].error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << statuses[i].error_message();
    ++refused;
    bearing::v1::CreateJobResponse again;
    ASSERT_TRUE(Create(request, &again).ok());
    names.insert(again.job().name());
  }
  bearing::v1::ListJobsResponse page;
  ASSERT_TRUE(List("", &page).ok());
  std::printf("1000 submits: %d told to ask again, %d names, %d jobs\n", refused, static_cast<int>(names.size()),
              page.jobs_size());
  EXPECT_EQ(names.size(), 1u);
  EXPECT_EQ(page.jobs_size(), 1);
}

TEST_F(LoadTest, WatchersThatReadNothingDoNotSlowOthers) {
  constexpr int kWatchers = 1000;
  Start();
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = spec_;
  bearing::v1::CreateJobResponse watched;
  ASSERT_TRUE(Create(request, &watched).ok());
  grpc::ClientContext lease_context;
  bearing::v1::AcquireLeaseRequest ask;
  ask.mutable_group()->set_id("g");
  ask.mutable_group()->set_ranks(1);
  bearing::v1::AcquireLeaseResponse lease;
  ASSERT_TRUE(workers_->AcquireLease(&lease_context, ask, &lease).ok());
  int64_t done = 0;
  const auto report = [&] {
    grpc::ClientContext context;
    bearing::v1::ReportProgressRequest progress;
    progress.set_group_id("g");
    progress.set_job_name(lease.lease().job_name());
    progress.set_attempt(1);
    progress.mutable_progress()->set_done(++done);
    bearing::v1::ReportProgressResponse response;
    ASSERT_TRUE(workers_->ReportProgress(&context, progress, &response).ok());
  };
  const auto measure = [&] {
    Times times;
    bearing::v1::ListJobsResponse page;
    for (int i = 0; i < 300; ++i) {
      if (i % 10 == 0) report();
      times.Measure([&] { ASSERT_TRUE(List("", &page).ok()); });
    }
    return times;
  };
  measure();
  Times alone = measure();
  // On connections of their own, as they would be.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<bearing::v1::WatchJobResponse>>> readers;
  std::vector<std::unique_ptr<JobsService::Stub>> stubs;
  for (int i = 0; i < kWatchers; ++i) {
    if (i % 100 == 0) {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs.push_back(JobsService::NewStub(grpc::CreateCustomChannel(
          absl::StrCat("127.0.0.1:", std::stoi(ReadAll(dir_ / "port"))), grpc::InsecureChannelCredentials(), arguments)));
    }
    bearing::v1::WatchJobRequest watch;
    // A job that changes all the time; nobody reads.
    watch.set_name(watched.job().name());
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stubs.back()->WatchJob(contexts.back().get(), watch));
  }
  // All are open: the cap answers one more.
  bool full = false;
  for (int i = 0; i < 500 && !full; ++i) {
    absl::SleepFor(absl::Milliseconds(20));
    grpc::ClientContext context;
    bearing::v1::WatchJobRequest watch;
    watch.set_name(watched.job().name());
    auto reader = jobs_->WatchJob(&context, watch);
    bearing::v1::WatchJobResponse message;
    if (!reader->Read(&message)) full = reader->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
    context.TryCancel();
  }
  EXPECT_TRUE(full);
  Times crowded = measure();
  const int64_t resident = ResidentMebibytes();
  std::printf("list alone %s; with %d watchers that do not read %s; resident %ld MiB\n", alone.Text().c_str(), kWatchers,
              crowded.Text().c_str(), static_cast<long>(resident));
  EXPECT_LT(crowded.Quantile(0.5), 2 * alone.Quantile(0.5) + 1);
  EXPECT_LT(resident, kMostMebibytes);
  for (auto& context : contexts) context->TryCancel();
  bearing::v1::WatchJobResponse rest;
  for (auto& reader : readers) {
    while (reader->Read(&rest)) {
    }
    reader->Finish();
  }
}

}  // namespace
}  // namespace bearing::coordinator
