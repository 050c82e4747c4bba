#include "coordinator/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "coordinator/job_columns.h"
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
  auto rows = store->List({}, 0, 100);
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
    const std::vector<StoredJob> rows = store->List({state, {}}, before, limit).value();
    for (const StoredJob& row : rows) names.push_back(row.job.name());
    return names;
  };
  EXPECT_THAT(names(kAll, 0, 2), testing::ElementsAre("job-5", "job-4"));
  EXPECT_THAT(names(kAll, 4, 2), testing::ElementsAre("job-3", "job-2"));
  EXPECT_THAT(names(bearing::v1::JOB_STATE_FAILED, 0, 9), testing::ElementsAre("job-4", "job-2"));
}

TEST(JobStoreTest, NextQueuedLooksAtRanks) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  for (int ranks : {4, 2, 0}) {
    StoredJob stored = NewJob(absl::StrCat("ranks-", ranks), ranks);
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
  }
  EXPECT_EQ((*store->NextQueued({.ranks = 4}))->job.name(), "ranks-4");
  EXPECT_EQ((*store->NextQueued({.ranks = 2}))->job.name(), "ranks-2");
  EXPECT_EQ((*store->NextQueued({.ranks = 1}))->job.name(), "ranks-0");
}

TEST(JobStoreTest, NextQueuedIsByPriorityThenAge) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  const int priorities[] = {0, 5, 5, -1};
  for (int i = 0; i < 4; ++i) {
    StoredJob stored = NewJob(absl::StrCat("job-", i));
    stored.job.mutable_spec()->set_priority(priorities[i]);
    stored.job.mutable_create_time()->set_seconds(1000);
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
  }
  std::vector<std::string> order;
  for (int i = 0; i < 4; ++i) {
    StoredJob next = **store->NextQueued({.ranks = 1, .now_ms = 1'000'000});
    order.push_back(next.job.name());
    next.job.set_state(bearing::v1::JOB_STATE_RUNNING);
    ASSERT_TRUE(store->Update(&next).ok());
  }
  EXPECT_THAT(order, testing::ElementsAre("job-1", "job-2", "job-0", "job-3"));
}

TEST(JobStoreTest, AJobThatWaitsRises) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob old = NewJob("old");
  old.job.mutable_spec()->set_priority(-3);
  old.job.mutable_create_time()->set_seconds(1000);
  ASSERT_TRUE(store->Insert(&old, {}).ok());
  StoredJob fresh = NewJob("fresh");
  // Ten minutes a point: after 29 minutes it is at -1, after 30 at 0, where its age decides.
  fresh.job.mutable_create_time()->set_seconds(1000 + 29 * 60);
  ASSERT_TRUE(store->Insert(&fresh, {}).ok());
  EXPECT_EQ((*store->NextQueued({.ranks = 1, .now_ms = (1000 + 29 * 60) * 1000}))->job.name(), "fresh");
  EXPECT_EQ((*store->NextQueued({.ranks = 1, .now_ms = (1000 + 30 * 60) * 1000}))->job.name(), "old");
}

TEST(JobStoreTest, AGroupKeepsItsModelWhileNobodyWaitsLong) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob other = NewJob("other");
  other.job.mutable_create_time()->set_seconds(1000);
  ASSERT_TRUE(store->Insert(&other, {}).ok());
  StoredJob same = NewJob("same");
  same.job.mutable_spec()->mutable_model()->set_path("/held");
  same.job.mutable_create_time()->set_seconds(1001);
  ASSERT_TRUE(store->Insert(&same, {}).ok());
  QueueQuery query{.ranks = 1, .model_key = ModelKey(same.job.spec()), .now_ms = 1'030'000};
  EXPECT_EQ((*store->NextQueued(query))->job.name(), "same");
  query.now_ms = 1'060'000;
  EXPECT_EQ((*store->NextQueued(query))->job.name(), "other");
  query.skip = {other.id};
  EXPECT_EQ((*store->NextQueued(query))->job.name(), "same");
}

TEST(JobStoreTest, ListsByLabels) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  for (int i = 0; i < 4; ++i) {
    StoredJob stored = NewJob(absl::StrCat("job-", i));
    auto& labels = *stored.job.mutable_spec()->mutable_labels();
    labels["team"] = i % 2 == 0 ? "red" : "blue";
    if (i == 2) labels["kind"] = "small";
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
  }
  const auto names = [&](const std::map<std::string, std::string>& labels) {
    std::vector<std::string> names;
    const std::vector<StoredJob> rows = store->List({bearing::v1::JOB_STATE_UNSPECIFIED, labels}, 0, 9).value();
    for (const StoredJob& row : rows) names.push_back(row.job.name());
    return names;
  };
  EXPECT_THAT(names({{"team", "red"}}), testing::ElementsAre("job-2", "job-0"));
  EXPECT_THAT(names({{"team", "red"}, {"kind", "small"}}), testing::ElementsAre("job-2"));
  EXPECT_THAT(names({{"team", "green"}}), testing::IsEmpty());
}

TEST(JobStoreTest, ALogIsARing) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob stored = NewJob("a");
  ASSERT_TRUE(store->Insert(&stored, {}).ok());
  for (int batch = 0; batch < 3; ++batch) {
    LogLines lines(500);
    for (int i = 0; i < 500; ++i) lines[i].set_text(absl::StrCat(batch * 500 + i + 1));
    ASSERT_TRUE(store->AppendLogs(stored.id, &lines).ok());
    EXPECT_EQ(lines.front().number(), batch * 500 + 1);
  }
  const LogLines all = store->ReadLogs(stored.id, 0, 0, 5000).value();
  ASSERT_EQ(all.size(), 1000u);
  EXPECT_EQ(all.front().text(), "501");
  EXPECT_EQ(all.back().number(), 1500);
  EXPECT_EQ(store->ReadLogs(stored.id, 0, 3, 5000)->front().text(), "1498");
  EXPECT_EQ(store->ReadLogs(stored.id, 1499, 0, 5000)->size(), 1u);
}

TEST(JobStoreTest, DeletesEndedJobsOnlyWithAllThatBelongsToThem) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  StoredJob stored = NewJob("a");
  (*stored.job.mutable_spec()->mutable_labels())["team"] = "red";
  LogLines lines(1);
  ASSERT_TRUE(store->Insert(&stored, {"request", "hash"}, &lines).ok());
  EXPECT_EQ(store->Delete(stored.id).code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(store->FindRequest("request")->has_value());
  Fail(&stored.job, "R", "", WallTime());
  ASSERT_TRUE(store->Update(&stored).ok());
  ASSERT_TRUE(store->Delete(stored.id).ok());
  EXPECT_EQ(store->Get("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(store->FindRequest("request")->has_value());
  store.reset();
  auto database = Database::Open(dir / "jobs.db");
  ASSERT_TRUE(database.ok());
  for (const char* table : {"jobs", "requests", "labels", "log_lines"}) {
    EXPECT_EQ((*database)->QueryText(absl::StrCat("SELECT count(*) FROM ", table)).value(), "0") << table;
  }
}

TEST(JobStoreTest, FindsWhatNeedNotBeKept) {
  TempDir dir;
  auto store = OpenStore(dir / "jobs.db");
  for (int i = 1; i <= 4; ++i) {
    StoredJob stored = NewJob(absl::StrCat("job-", i));
    ASSERT_TRUE(store->Insert(&stored, {}).ok());
    if (i == 4) break;  // It waits.
    Fail(&stored.job, "R", "", WallTime(std::chrono::seconds(i * 100)));
    ASSERT_TRUE(store->Update(&stored).ok());
  }
  EXPECT_THAT(store->Outdated(200'000, 0, 9).value(), testing::ElementsAre(1));
  EXPECT_THAT(store->Outdated(0, 2, 9).value(), testing::ElementsAre(1));
  EXPECT_THAT(store->Outdated(0, 1, 9).value(), testing::ElementsAre(1, 2));
  EXPECT_THAT(store->Outdated(0, 0, 9).value(), testing::IsEmpty());
}

TEST(JobStoreTest, RunsEachMigrationOnceInOrder) {
  TempDir dir;
  auto database = Database::Open(dir / "m.db");
  ASSERT_TRUE(database.ok());
  std::vector<Migration> steps = {"CREATE TABLE t (x INTEGER)", "INSERT INTO t VALUES (1)"};
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
