#include "coordinator/migrations.h"

#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bearing/v1/job.pb.h"
#include "coordinator/job_columns.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {

namespace {

// Fills the columns that came with the queue's order, and the labels, from the jobs themselves.
absl::Status FillQueueColumns(Database* database) {
  BEARING_ASSIGN_OR_RETURN(Statement select, database->Prepare("SELECT id, job FROM jobs"));
  while (true) {
    BEARING_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return absl::OkStatus();
    const int64_t id = select.Int(0);
    bearing::v1::Job job;
    if (!job.ParseFromString(select.Bytes(1))) {
      return absl::DataLossError(absl::StrCat("job store: a row does not parse as a job: id=", id));
    }
    BEARING_ASSIGN_OR_RETURN(Statement update,
                             database->Prepare("UPDATE jobs SET queued_ms = ?, ended_ms = ?, model_key = ? WHERE id = ?"));
    const std::string key = ModelKey(job.spec());
    update.Bind(1, ToMilliseconds(job.create_time())).Bind(2, ToMilliseconds(job.end_time())).BindText(3, key).Bind(4, id);
    BEARING_RETURN_IF_ERROR(update.Step().status());
    BEARING_RETURN_IF_ERROR(InsertLabels(database, id, job.spec()));
  }
}

}  // namespace

std::vector<Migration> SchemaMigrations() {
  return {
      // `job` is the serialized bearing.v1.Job; the other columns are what queries look at. States 4, 5, 6 are final.
      R"sql(
        CREATE TABLE jobs (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          name TEXT NOT NULL UNIQUE,
          state INTEGER NOT NULL,
          ranks INTEGER NOT NULL,
          attempt INTEGER NOT NULL,
          sequence INTEGER NOT NULL,
          group_id TEXT NOT NULL,
          job BLOB NOT NULL
        ) STRICT;
        CREATE INDEX jobs_by_state ON jobs (state, id);
        CREATE TRIGGER jobs_final_stays BEFORE UPDATE ON jobs WHEN OLD.state IN (4, 5, 6)
          BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END;
        CREATE TABLE requests (
          request_id TEXT PRIMARY KEY,
          body_hash TEXT NOT NULL,
          job_id INTEGER NOT NULL REFERENCES jobs (id)
        ) STRICT, WITHOUT ROWID;
      )sql",
      // The order of the queue, labels, logs, and what deleting a job needs. Times are milliseconds since 1970.
      {R"sql(
        DROP TRIGGER jobs_final_stays;
        ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE jobs ADD COLUMN queued_ms INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE jobs ADD COLUMN ended_ms INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE jobs ADD COLUMN model_key TEXT NOT NULL DEFAULT '';
        CREATE TABLE labels (
          key TEXT NOT NULL,
          value TEXT NOT NULL,
          job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
          PRIMARY KEY (key, value, job_id)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE log_lines (
          job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
          number INTEGER NOT NULL,
          time_ms INTEGER NOT NULL,
          attempt INTEGER NOT NULL,
          rank INTEGER NOT NULL,
          level TEXT NOT NULL,
          text TEXT NOT NULL,
          PRIMARY KEY (job_id, number)
        ) STRICT, WITHOUT ROWID;
      )sql",
       &FillQueueColumns,
       R"sql(
        CREATE INDEX jobs_queue ON jobs (state, priority, ranks, id, queued_ms);
        CREATE INDEX jobs_ended ON jobs (ended_ms, id) WHERE state IN (4, 5, 6);
        CREATE INDEX labels_by_job ON labels (job_id);
        CREATE INDEX requests_by_job ON requests (job_id);
        CREATE TRIGGER jobs_final_stays BEFORE UPDATE ON jobs WHEN OLD.state IN (4, 5, 6)
          BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END;
      )sql"},
  };
}

absl::Status Migrate(Database* database, const std::vector<Migration>& migrations) {
  BEARING_ASSIGN_OR_RETURN(std::string text, database->QueryText("PRAGMA user_version"));
  int64_t version = 0;
  if (!absl::SimpleAtoi(text, &version) || version < 0) {
    return absl::DataLossError(absl::StrCat("job store: unreadable schema version: user_version=", text));
  }
  const int64_t known = static_cast<int64_t>(migrations.size());
  if (version > known) {
    return absl::FailedPreconditionError(
        absl::StrCat("job store was written by a newer version of Bearing: schema=", version, " newest known=", known));
  }
  for (; version < known; ++version) {
    BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database));
    const Migration& step = migrations[version];
    BEARING_RETURN_IF_ERROR(database->Execute(step.sql));
    if (step.fill) BEARING_RETURN_IF_ERROR(step.fill(database));
    if (!step.finish.empty()) BEARING_RETURN_IF_ERROR(database->Execute(step.finish));
    BEARING_RETURN_IF_ERROR(database->Execute(absl::StrCat("PRAGMA user_version = ", version + 1)));
    BEARING_RETURN_IF_ERROR(transaction->Commit());
  }
  return absl::OkStatus();
}

}  // namespace bearing::coordinator
