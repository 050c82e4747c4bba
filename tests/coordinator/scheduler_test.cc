#include "coordinator/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "coordinator/job_transitions.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

class SchedulerTest : public testing::Test {
 protected:
  SchedulerTest() { Restart(); }

  void Restart() {
    scheduler_.reset();
    store_.reset();
    store_ = JobStore::Open(dir_ / "jobs.db").value();
    scheduler_ = Scheduler::Create({seconds(30), 3}, {store_.get(), &feed_, &checker_, &clock_, random_, &logger_}).value();
  }

  std::string Submit(const std::string& name, int ranks = 0, const std::string& model = "/model") {
    return scheduler_->Submit(SpecNamed(name, ranks, model), {}).value().job.name();
  }

  static bearing::v1::WorkerGroup Group(const std::string& id, int ranks = 2) {
    bearing::v1::WorkerGroup group;
    group.set_id(id);
    group.set_ranks(ranks);
    group.set_memory_bytes_per_rank(1'000'000);
    return group;
  }

  std::optional<bearing::v1::Lease> Acquire(const std::string& id, int ranks = 2) {
    auto lease = scheduler_->Acquire(Group(id, ranks));
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  absl::StatusOr<bool> Heartbeat(const std::string& id, const bearing::v1::Lease& lease, int64_t done = 0) {
    bearing::v1::HeartbeatRequest request;
    request.set_group_id(id);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.mutable_progress()->set_done(done);
    return scheduler_->Heartbeat(request);
  }

  static bearing::v1::CompleteRequest Outcome(const std::string& id, const bearing::v1::Lease& lease) {
    bearing::v1::CompleteRequest request;
    request.set_group_id(id);
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    return request;
  }

  absl::Status Succeed(const std::string& id, const bearing::v1::Lease& lease, int layer = 1) {
    bearing::v1::CompleteRequest request = Outcome(id, lease);
    request.mutable_result()->set_layer(layer);
    return scheduler_->Complete(request);
  }

  bearing::v1::Job Job(const std::string& name) { return store_->Get(name).value().job; }

  TempDir dir_;
  FakeClock clock_;
  FakeChecker checker_;
  spdlog::logger logger_ = NullLogger();
  // Goes on over restarts, as real randomness does.
  RandomSource random_ = Counting();
  JobFeed feed_{10};
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerTest, HandsOutInOrderOfCreation) {
  const std::string first = Submit("a");
  const std::string second = Submit("b");
  EXPECT_EQ(first, "a-000001");
  EXPECT_EQ(Acquire("g1")->job_name(), first);
  EXPECT_EQ(Acquire("g2")->job_name(), second);
  EXPECT_FALSE(Acquire("g3").has_value());
}

TEST_F(SchedulerTest, ALeaseCarriesSpecPlanAndFence) {
  Submit("a");
  auto lease = Acquire("g", 3);
  ASSERT_TRUE(lease.has_value());
  EXPECT_EQ(lease->attempt(), 1);
  EXPECT_EQ(lease->ttl_seconds(), 30);
  EXPECT_EQ(lease->plan().ranks_size(), 3);
  EXPECT_EQ(lease->spec().name(), "a");
  EXPECT_EQ(Job(lease->job_name()).plan().ranks_size(), 3);
  EXPECT_TRUE(Job(lease->job_name()).has_start_time());
}

TEST_F(SchedulerTest, AJobThatNamesItsRanksWaitsForSuchAGroup) {
  const std::string four = Submit("four", 4);
  const std::string any = Submit("any");
  EXPECT_EQ(Acquire("g2", 2)->job_name(), any);
  EXPECT_FALSE(Acquire("g2b", 2).has_value());
  EXPECT_EQ(Acquire("g4", 4)->job_name(), four);
}

TEST_F(SchedulerTest, ANameThatIsTakenIsDrawnAgain) {
  std::vector<uint32_t> draws = {7, 7, 8};
  size_t next = 0;
  auto drawn = Scheduler::Create({}, {store_.get(), &feed_, &checker_, &clock_, [&] { return draws[next++]; }, &logger_});
  ASSERT_TRUE(drawn.ok());
  EXPECT_EQ((*drawn)->Submit(SpecNamed("a"), {})->job.name(), "a-000007");
  EXPECT_EQ((*drawn)->Submit(SpecNamed("a"), {})->job.name(), "a-000008");
}

TEST_F(SchedulerTest, HeartbeatsKeepTheLease) {
  Submit("a");
  auto lease = Acquire("g");
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(seconds(29));
    scheduler_->ExpireLeases();
    auto cancel = Heartbeat("g", *lease, i);
    ASSERT_TRUE(cancel.ok()) << cancel.status();
    EXPECT_FALSE(*cancel);
  }
  EXPECT_EQ(Job(lease->job_name()).progress().done(), 9);
}

TEST_F(SchedulerTest, AHeartbeatThatSaysNothingNewWritesNothing) {
  Submit("a");
  auto lease = Acquire("g");
  ASSERT_TRUE(Heartbeat("g", *lease, 5).ok());
  const int64_t sequence = store_->Get(lease->job_name())->sequence;
  ASSERT_TRUE(Heartbeat("g", *lease, 5).ok());
  EXPECT_EQ(store_->Get(lease->job_name())->sequence, sequence);
}

TEST_F(SchedulerTest, AnExpiredLeaseGoesBackToItsPlaceInTheQueue) {
  const std::string first = Submit("a");
  Submit("b");
  auto lease = Acquire("g1");
  clock_.Advance(seconds(30));
  scheduler_->ExpireLeases();
  EXPECT_EQ(Job(first).state(), bearing::v1::JOB_STATE_QUEUED);
  auto again = Acquire("g2");
  EXPECT_EQ(again->job_name(), first);
  EXPECT_EQ(again->attempt(), 2);
}

TEST_F(SchedulerTest, LateReportsAreFenced) {
  Submit("a");
  auto lease = Acquire("g1");
  clock_.Advance(seconds(31));
  // Nobody has looked at the time yet: it counts all the same.
  EXPECT_EQ(Heartbeat("g1", *lease).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Succeed("g1", *lease).code(), absl::StatusCode::kAborted);
  auto again = Acquire("g2");
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(Heartbeat("g1", *lease).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Succeed("g1", *lease).code(), absl::StatusCode::kAborted);
  // The right group with the wrong number, and the right number with the wrong group.
  EXPECT_EQ(Succeed("g2", *lease).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Succeed("g1", *again).code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(Succeed("g2", *again).ok());
  EXPECT_EQ(Job(lease->job_name()).state(), bearing::v1::JOB_STATE_SUCCEEDED);
}

TEST_F(SchedulerTest, CompleteTwiceIsFineForTheSameOutcomeOnly) {
  Submit("a");
  auto lease = Acquire("g");
  ASSERT_TRUE(Succeed("g", *lease, 7).ok());
  EXPECT_TRUE(Succeed("g", *lease, 7).ok());
  EXPECT_EQ(Succeed("g", *lease, 8).code(), absl::StatusCode::kAborted);
  bearing::v1::CompleteRequest error = Outcome("g", *lease);
  error.mutable_error()->set_reason("X");
  EXPECT_EQ(scheduler_->Complete(error).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Job(lease->job_name()).result().layer(), 7);
  Restart();
  EXPECT_TRUE(Succeed("g", *lease, 7).ok());
}

TEST_F(SchedulerTest, ASucceededJobIsAtItsLastStageWhateverWasReported) {
  Submit("a");
  auto lease = Acquire("g");
  ASSERT_TRUE(Heartbeat("g", *lease, 5).ok());
  bearing::v1::CompleteRequest outcome = Outcome("g", *lease);
  outcome.mutable_result()->set_layer(1);
  outcome.add_stage_times()->set_stage(bearing::v1::STAGE_COLLECT);
  outcome.add_stage_times()->set_stage(bearing::v1::STAGE_REPORT);
  ASSERT_TRUE(scheduler_->Complete(outcome).ok());
  EXPECT_EQ(Job(lease->job_name()).progress().stage(), bearing::v1::STAGE_REPORT);
  EXPECT_EQ(Job(lease->job_name()).progress().total(), 0);
}

TEST_F(SchedulerTest, CompleteNeedsAnOutcome) {
  Submit("a");
  auto lease = Acquire("g");
  EXPECT_EQ(scheduler_->Complete(Outcome("g", *lease)).code(), absl::StatusCode::kInvalidArgument);
  bearing::v1::CompleteRequest cancelled = Outcome("g", *lease);
  cancelled.set_cancelled(true);
  EXPECT_EQ(scheduler_->Complete(cancelled).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Job(lease->job_name()).state(), bearing::v1::JOB_STATE_RUNNING);
}

TEST_F(SchedulerTest, UnknownJobsAreNotFound) {
  bearing::v1::Lease lease;
  lease.set_job_name("none");
  EXPECT_EQ(Heartbeat("g", lease).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Succeed("g", lease).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(scheduler_->Cancel("none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SchedulerTest, AWorkerErrorFailsTheJob) {
  Submit("a");
  auto lease = Acquire("g");
  bearing::v1::CompleteRequest error = Outcome("g", *lease);
  error.mutable_error()->set_reason("NONE_SELECTED");
  error.mutable_error()->set_stage(bearing::v1::STAGE_SELECT);
  ASSERT_TRUE(scheduler_->Complete(error).ok());
  EXPECT_EQ(Job(lease->job_name()).state(), bearing::v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job(lease->job_name()).error().reason(), "NONE_SELECTED");
}

TEST_F(SchedulerTest, FailsAfterTheLastAttempt) {
  const std::string name = Submit("a");
  for (int attempt = 1; attempt <= 3; ++attempt) {
    auto lease = Acquire("g");
    ASSERT_TRUE(lease.has_value());
    EXPECT_EQ(lease->attempt(), attempt);
    clock_.Advance(seconds(31));
    scheduler_->ExpireLeases();
  }
  EXPECT_FALSE(Acquire("g").has_value());
  EXPECT_EQ(Job(name).state(), bearing::v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job(name).error().reason(), "WORKER_GROUP_LOST");
  EXPECT_THAT(Job(name).error().message(), HasSubstr("worker group lost"));
  EXPECT_TRUE(Job(name).has_end_time());
}

TEST_F(SchedulerTest, AGroupThatAsksForWorkHasLostItsLease) {
  const std::string name = Submit("a");
  auto lease = Acquire("g");
  auto again = Acquire("g");
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->job_name(), name);
  EXPECT_EQ(again->attempt(), 2);
  EXPECT_EQ(Succeed("g", *lease).code(), absl::StatusCode::kAborted);
}

TEST_F(SchedulerTest, CancelsAQueuedJobAtOnce) {
  const std::string name = Submit("a");
  auto cancelled = scheduler_->Cancel(name);
  ASSERT_TRUE(cancelled.ok());
  EXPECT_EQ(cancelled->job.state(), bearing::v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(Acquire("g").has_value());
  EXPECT_EQ(scheduler_->Cancel(name).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SchedulerTest, CancelsARunningJobThroughItsGroup) {
  const std::string name = Submit("a");
  auto lease = Acquire("g");
  EXPECT_EQ(scheduler_->Cancel(name)->job.state(), bearing::v1::JOB_STATE_CANCELLING);
  EXPECT_EQ(scheduler_->Cancel(name)->job.state(), bearing::v1::JOB_STATE_CANCELLING);
  auto cancel = Heartbeat("g", *lease);
  ASSERT_TRUE(cancel.ok());
  EXPECT_TRUE(*cancel);
  bearing::v1::CompleteRequest request = Outcome("g", *lease);
  request.set_cancelled(true);
  ASSERT_TRUE(scheduler_->Complete(request).ok());
  EXPECT_TRUE(scheduler_->Complete(request).ok());
  EXPECT_EQ(Job(name).state(), bearing::v1::JOB_STATE_CANCELLED);
}

TEST_F(SchedulerTest, AResultThatWasReadyBeforeTheCancelStands) {
  const std::string name = Submit("a");
  auto lease = Acquire("g");
  ASSERT_TRUE(scheduler_->Cancel(name).ok());
  ASSERT_TRUE(Succeed("g", *lease).ok());
  EXPECT_EQ(Job(name).state(), bearing::v1::JOB_STATE_SUCCEEDED);
}

TEST_F(SchedulerTest, ACancelledJobWhoseGroupIsLostIsCancelled) {
  const std::string name = Submit("a");
  Acquire("g");
  ASSERT_TRUE(scheduler_->Cancel(name).ok());
  clock_.Advance(seconds(31));
  scheduler_->ExpireLeases();
  EXPECT_EQ(Job(name).state(), bearing::v1::JOB_STATE_CANCELLED);
}

TEST_F(SchedulerTest, AJobTooLargeForTheGroupFailsWithTheFigures) {
  const std::string huge = Submit("huge", 0, "/huge");
  const std::string next = Submit("next");
  EXPECT_EQ(Acquire("g")->job_name(), next);
  EXPECT_EQ(Job(huge).state(), bearing::v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job(huge).error().reason(), "DOES_NOT_FIT");
  EXPECT_THAT(Job(huge).error().message(), HasSubstr("weight_bytes=100000000000"));
  EXPECT_THAT(Job(huge).error().message(), HasSubstr("memory_bytes_per_rank=1000000"));
  EXPECT_EQ(Job(huge).attempt(), 0);
}

TEST_F(SchedulerTest, AModelThatCannotBeCutFailsTheJob) {
  const std::string odd = Submit("odd", 0, "/odd");
  EXPECT_FALSE(Acquire("g").has_value());
  EXPECT_EQ(Job(odd).error().reason(), "MODEL_UNUSABLE");
  EXPECT_THAT(Job(odd).error().message(), HasSubstr("no query head"));
}

TEST_F(SchedulerTest, ARestartKeepsLeasesAndStartsTheirTimeAnew) {
  const std::string name = Submit("a");
  auto lease = Acquire("g");
  clock_.Advance(seconds(25));
  Restart();
  clock_.Advance(seconds(29));
  ASSERT_TRUE(Heartbeat("g", *lease).ok());
  Restart();
  clock_.Advance(seconds(30));
  EXPECT_EQ(Heartbeat("g", *lease).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Job(name).state(), bearing::v1::JOB_STATE_QUEUED);
}

TEST_F(SchedulerTest, ARequestIdMakesOneJob) {
  const RequestKey key{"0b6e4f7c", "hash"};
  const std::string name = scheduler_->Submit(SpecNamed("a"), {.request = key})->job.name();
  EXPECT_EQ(scheduler_->Submit(SpecNamed("a"), {.request = key})->job.name(), name);
  Restart();
  EXPECT_EQ(scheduler_->Submit(SpecNamed("a"), {.request = key})->job.name(), name);
  EXPECT_EQ(scheduler_->Submit(SpecNamed("a"), {.request = {"0b6e4f7c", "other"}}).status().code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(SchedulerTest, HandsOutNothingAfterClose) {
  Submit("a");
  scheduler_->Close();
  EXPECT_FALSE(Acquire("g").has_value());
}

// Every order of events leads through legal states, and no job is ever held twice.
TEST_F(SchedulerTest, RandomEventsKeepTheInvariants) {
  uint32_t seed = 12345;
  auto draw = [&seed](uint32_t below) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
  };
  std::vector<std::pair<std::string, bearing::v1::Lease>> leases;
  std::vector<std::string> names;
  std::map<std::string, bearing::v1::JobState> finals;
  for (int step = 0; step < 600; ++step) {
    const uint32_t event = draw(7);
    if (event == 0) names.push_back(Submit("job"));
    if (event == 1) {
      const std::string group = absl::StrCat("g", draw(4));
      if (auto lease = Acquire(group)) leases.emplace_back(group, *lease);
    }
    if (event == 2 && !leases.empty()) {
      const auto& [group, lease] = leases[draw(leases.size())];
      (void)Heartbeat(group, lease, step);
    }
    if (event == 3 && !leases.empty()) {
      const auto& [group, lease] = leases[draw(leases.size())];
      (void)Succeed(group, lease, step);
    }
    if (event == 4 && !names.empty()) (void)scheduler_->Cancel(names[draw(names.size())]);
    if (event == 5) clock_.Advance(seconds(draw(20)));
    if (event == 6 && draw(10) == 0) Restart();
    std::set<std::string> holders;
    const std::vector<StoredJob> all_held = store_->Held().value();
    for (const StoredJob& held : all_held) {
      EXPECT_TRUE(holders.insert(held.group_id).second) << held.group_id << " holds two jobs at step " << step;
      EXPECT_LE(held.job.attempt(), 3);
    }
    for (const std::string& name : names) {
      const bearing::v1::JobState state = Job(name).state();
      EXPECT_TRUE(!finals.contains(name) || state == finals[name]) << name;
      if (IsFinal(state)) finals[name] = state;
    }
  }
  EXPECT_GT(finals.size(), 10u);
}

}  // namespace
}  // namespace bearing::coordinator
