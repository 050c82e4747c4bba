#include "coordinator/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "coordinator/job_transitions.h"
#include "coordinator/migrations.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {
namespace {

using ::testing::HasSubstr;

constexpr auto kAll = bearing::v1::JOB_STATE_UNSPECIFIED;

StoredJob NewJob(const std::string& name, int ranks = 0) {
  StoredJob stored;
  stored.job = MakeQueued(name, SpecNamed(name, ranks), WallTime());
  return stored;
}

std::unique_ptr<JobStore> OpenStore(const std::string& path) {
  auto store = JobStore::Open(path);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

TEST(JobStoreTest, KeepsJobsOverARestart) {
  TempDir dir;
  {
    auto store = OpenStore(dir / "deep/er/jobs.db");
    StoredJob stored = NewJob("a");
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
    EXPECT_EQ(stored.sequence, 1);
    stored.group_id = "group";
    StartAttempt(&stored.job, {}, WallTime());
    ASSERT_TRUE(store->Update(&stored).ok());
    EXPECT_EQ(stored.sequence, 2);
  }
  auto store = OpenStore(dir / "deep/er/jobs.db");
  auto found = store->Get("a");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->sequence, 2);
  EXPECT_EQ(found->group_id, "group");
  EXPECT_EQ(found->job.state(), bearing::v1::JOB_STATE_RUNNING);
  EXPECT_EQ(found->job.attempt(), 1);
  auto held = store->Held();
  ASSERT_TRUE(held.ok());
  ASSERT_EQ(held->size(), 1u);
}

TEST(JobStoreTest, CommittedJobsSurviveAKilledProcess) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto store = JobStore::Open(path);
    for (int i = 0; store.ok() && i < 20; ++i) {
      StoredJob stored = NewJob(absl::StrCat("job-", i));
      if (!(*store)->Insert(&stored, {absl::StrCat("r", i), "hash"}).ok()) _exit(1);
    }
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto store = OpenStore(path);
  auto rows = store->List(kAll, 0, 100);
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 20u);
  auto request = store->FindRequest("r7");
  ASSERT_TRUE(request.ok());
  ASSERT_TRUE(request->has_value());
  EXPECT_EQ((*request)->job.job.name(), "job-7");
}

TEST(JobStoreTest, RefusesASecondProcessOnTheFile) {
  TempDir dir;
  const std::string path = dir / "jobs.db";
  auto store = OpenStore(path);
  auto second = JobStore::Open(path);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().ToString(), HasSubstr("in use by another process"));
}

TEST(JobStoreTest, RefusesAFileThatIsNoStore) {
  TempDir dir;
  std::ofstream(dir / "jobs.db") << std::string(8192, 'x');
  EXPECT_EQ(JobStore::Open(dir / "jobs.db").status().code(), absl::StatusCode::kDataLoss);
  std::ofstream(dir / "file") << "x";
  EXPECT_EQ(JobStore::Open(dir / "file/jobs.db").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(JobStoreTest, NamesAndRequestsAreUnique) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob first = NewJob("a");
  ASSERT_TRUE(store->Insert(&first, {"r", "hash"}).ok());
  StoredJob same_name = NewJob("a");
  EXPECT_EQ(store->Insert(&same_name, {}).code(), absl::StatusCode::kAlreadyExists);
  StoredJob same_request = NewJob("b");
  EXPECT_EQ(store->Insert(&same_request, {"r", "hash"}).code(), absl::StatusCode::kAlreadyExists);
  // The failed insert took its job row back.
  EXPECT_EQ(store->Get("b").status().code(), absl::StatusCode::kNotFound);
  auto missing = store->FindRequest("other");
  ASSERT_TRUE(missing.ok());
  EXPECT_FALSE(missing->has_value());
}

TEST(JobStoreTest, UpdateNeedsTheSequenceThatIsStored) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob stored = NewJob("a");
  ASSERT_TRUE(store->Insert(&stored, {}).ok());
  StoredJob old = stored;
  ASSERT_TRUE(store->Update(&stored).ok());
  EXPECT_EQ(store->Update(&old).code(), absl::StatusCode::kAborted);
}

TEST(JobStoreTest, AFinalJobNeverChanges) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob stored = NewJob("a");
  ASSERT_TRUE(store->Insert(&stored, {}).ok());
  Fail(&stored.job, "REASON", "text", WallTime());
  ASSERT_TRUE(store->Update(&stored).ok());
  stored.job.set_state(bearing::v1::JOB_STATE_QUEUED);
  EXPECT_EQ(store->Update(&stored).code(), absl::StatusCode::kAborted);
  // Nor behind the store's back.
  store.reset();
  auto database = Database::Open(dir / "jobs.db");
  ASSERT_TRUE(database.ok());
  EXPECT_THAT((*database)->Execute("UPDATE jobs SET state = 1").ToString(), HasSubstr("never changes"));
}

TEST(JobStoreTest, ListsNewestFirstByStateAndMark) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  for (int i = 1; i <= 5; ++i) {
    StoredJob stored = NewJob(absl::StrCat("job-", i));
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
    if (i % 2 == 0) {
      Fail(&stored.job, "R", "", WallTime());
      ASSERT_TRUE(store->Update(&stored).ok());
    }
  }
  auto names = [&](bearing::v1::JobState state, int64_t before, int limit) {
    std::vector<std::string> names;
    const std::vector<StoredJob> rows = store->List(state, before, limit).value();
    for (const StoredJob& row : rows) names.push_back(row.job.name());
    return names;
  };
  EXPECT_THAT(names(kAll, 0, 2), testing::ElementsAre("job-5", "job-4"));
  EXPECT_THAT(names(kAll, 4, 2), testing::ElementsAre("job-3", "job-2"));
  EXPECT_THAT(names(bearing::v1::JOB_STATE_FAILED, 0, 9), testing::ElementsAre("job-4", "job-2"));
}

TEST(JobStoreTest, OldestQueuedLooksAtRanks) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  for (int ranks : {4, 2, 0}) {
    StoredJob stored = NewJob(absl::StrCat("ranks-", ranks), ranks);
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
  }
  EXPECT_EQ((*store->OldestQueued(4))->job.name(), "ranks-4");
  EXPECT_EQ((*store->OldestQueued(2))->job.name(), "ranks-2");
  EXPECT_EQ((*store->OldestQueued(1))->job.name(), "ranks-0");
}

TEST(JobStoreTest, RunsEachMigrationOnceInOrder) {
  TempDir dir;
  auto database = Database::Open(dir / "m.db");
  ASSERT_TRUE(database.ok());
  std::vector<std::string> steps = {"CREATE TABLE t (x INTEGER)", "INSERT INTO t VALUES (1)"};
  ASSERT_TRUE(Migrate(database->get(), steps).ok());
  ASSERT_TRUE(Migrate(database->get(), steps).ok());
  EXPECT_EQ((*database)->QueryText("SELECT count(*) FROM t").value(), "1");
  steps.push_back("INSERT INTO t VALUES (2)");
  ASSERT_TRUE(Migrate(database->get(), steps).ok());
  EXPECT_EQ((*database)->QueryText("SELECT sum(x) FROM t").value(), "3");
  EXPECT_EQ((*database)->QueryText("PRAGMA user_version").value(), "3");
}

TEST(JobStoreTest, AFailedMigrationLeavesNothingBehind) {
  TempDir dir;
  auto database = Database::Open(dir / "m.db");
  ASSERT_TRUE(database.ok());
  EXPECT_FALSE(Migrate(database->get(), {"CREATE TABLE t (x INTEGER); INSERT INTO missing VALUES (1)"}).ok());
  EXPECT_EQ((*database)->QueryText("PRAGMA user_version").value(), "0");
  EXPECT_EQ((*database)->QueryText("SELECT count(*) FROM sqlite_master").value(), "0");
}

TEST(JobStoreTest, RefusesAStoreOfANewerVersion) {
  TempDir dir;
  OpenStore(dir / "jobs.db").reset();
  {
    auto database = Database::Open(dir / "jobs.db");
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE((*database)->Execute("PRAGMA user_version = 99").ok());
  }
  auto store = JobStore::Open(dir / "jobs.db");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(store.status().ToString(), HasSubstr("schema=99"));
}

}  // namespace
}  // namespace bearing::coordinator
