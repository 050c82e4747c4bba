#include "coordinator/job_store.h"

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/migrations.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::JobState;

constexpr char kColumns[] = "SELECT jobs.id, jobs.sequence, jobs.group_id, jobs.job FROM jobs ";

absl::StatusOr<StoredJob> RowOf(const Statement& statement) {
  StoredJob stored;
  stored.id = statement.Int(0);
  stored.sequence = statement.Int(1);
  stored.group_id = statement.Bytes(2);
  if (!stored.job.ParseFromString(statement.Bytes(3))) {
    return absl::DataLossError(absl::StrCat("job store: a row does not parse as a job: id=", stored.id));
  }
  return stored;
}

absl::StatusOr<std::vector<StoredJob>> RowsOf(Statement& statement) {
  std::vector<StoredJob> rows;
  while (true) {
    BEARING_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) return rows;
    BEARING_ASSIGN_OR_RETURN(StoredJob stored, RowOf(statement));
    rows.push_back(std::move(stored));
  }
}

absl::Status Configure(Database* database) {
  BEARING_RETURN_IF_ERROR(database->Execute("PRAGMA busy_timeout = 5000"));
  // Exclusive: leases live in one process, so a second coordinator on the same file would hand jobs out twice.
  BEARING_RETURN_IF_ERROR(database->Execute("PRAGMA locking_mode = EXCLUSIVE"));
  BEARING_ASSIGN_OR_RETURN(std::string mode, database->QueryText("PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return absl::FailedPreconditionError(absl::StrCat("job store: the file system does not support WAL: journal_mode=", mode));
  }
  BEARING_RETURN_IF_ERROR(database->Execute("PRAGMA synchronous = FULL"));
  BEARING_RETURN_IF_ERROR(database->Execute("PRAGMA foreign_keys = ON"));
  return Migrate(database, SchemaMigrations());
}

}  // namespace

bool IsFinal(JobState state) {
  return state == bearing::v1::JOB_STATE_SUCCEEDED || state == bearing::v1::JOB_STATE_FAILED ||
         state == bearing::v1::JOB_STATE_CANCELLED;
}

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("job store: cannot make the folder: path=", folder.string(), " error=", error.message()));
  }
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  if (absl::Status status = Configure(database.get()); !status.ok()) {
    if (absl::IsUnavailable(status)) {
      return absl::UnavailableError(absl::StrCat("job store is in use by another process: path=", path));
    }
    return absl::Status(status.code(), absl::StrCat(status.message(), " path=", path));
  }
  return std::unique_ptr<JobStore>(new JobStore(std::move(database)));
}

absl::Status JobStore::Insert(StoredJob* stored, const RequestKey& request) {
  absl::MutexLock lock(&mutex_);
  const std::string blob = stored->job.SerializeAsString();
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database_.get()));
  BEARING_ASSIGN_OR_RETURN(
      Statement insert,
      database_->Prepare(
          "INSERT INTO jobs (name, state, ranks, attempt, sequence, group_id, job) VALUES (?, ?, ?, ?, 1, ?, ?)"));
  insert.BindText(1, stored->job.name()).Bind(2, stored->job.state()).Bind(3, stored->job.spec().ranks());
  insert.Bind(4, stored->job.attempt()).BindText(5, stored->group_id).BindBlob(6, blob);
  BEARING_RETURN_IF_ERROR(insert.Step().status());
  const int64_t id = database_->last_insert_id();
  if (!request.request_id.empty()) {
    BEARING_ASSIGN_OR_RETURN(Statement link,
                             database_->Prepare("INSERT INTO requests (request_id, body_hash, job_id) VALUES (?, ?, ?)"));
    link.BindText(1, request.request_id).BindText(2, request.body_hash).Bind(3, id);
    BEARING_RETURN_IF_ERROR(link.Step().status());
  }
  BEARING_RETURN_IF_ERROR(transaction->Commit());
  stored->id = id;
  stored->sequence = 1;
  return absl::OkStatus();
}

absl::Status JobStore::Update(StoredJob* stored) {
  absl::MutexLock lock(&mutex_);
  const std::string blob = stored->job.SerializeAsString();
  BEARING_ASSIGN_OR_RETURN(Statement update,
                           database_->Prepare("UPDATE jobs SET state = ?, attempt = ?, sequence = sequence + 1, group_id = ?, "
                                              "job = ? WHERE id = ? AND sequence = ? AND state NOT IN (4, 5, 6)"));
  update.Bind(1, stored->job.state()).Bind(2, stored->job.attempt()).BindText(3, stored->group_id).BindBlob(4, blob);
  update.Bind(5, stored->id).Bind(6, stored->sequence);
  BEARING_RETURN_IF_ERROR(update.Step().status());
  if (database_->changes() == 0) {
    return absl::AbortedError(
        absl::StrCat("job has changed or ended in between: name=", stored->job.name(), " sequence=", stored->sequence));
  }
  ++stored->sequence;
  return absl::OkStatus();
}

absl::StatusOr<StoredJob> JobStore::Get(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(kColumns, "WHERE name = ?")));
  BEARING_ASSIGN_OR_RETURN(bool row, select.BindText(1, name).Step());
  if (!row) return absl::NotFoundError(absl::StrCat("no such job: name=", name));
  return RowOf(select);
}

absl::StatusOr<std::optional<JobStore::RequestedJob>> JobStore::FindRequest(const std::string& request_id) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select,
                           database_->Prepare("SELECT jobs.id, jobs.sequence, jobs.group_id, jobs.job, requests.body_hash "
                                              "FROM requests JOIN jobs ON jobs.id = requests.job_id WHERE request_id = ?"));
  BEARING_ASSIGN_OR_RETURN(bool row, select.BindText(1, request_id).Step());
  if (!row) return std::nullopt;
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, RowOf(select));
  return RequestedJob{select.Bytes(4), std::move(stored)};
}

absl::StatusOr<std::vector<StoredJob>> JobStore::List(JobState state, int64_t before_id, int limit) {
  absl::MutexLock lock(&mutex_);
  const bool all = state == bearing::v1::JOB_STATE_UNSPECIFIED;
  BEARING_ASSIGN_OR_RETURN(Statement select,
                           database_->Prepare(absl::StrCat(kColumns, "WHERE id < ?1 AND ", all ? "?2 = 0" : "state = ?2",
                                                           " ORDER BY id DESC LIMIT ?3")));
  const int64_t below = before_id == 0 ? std::numeric_limits<int64_t>::max() : before_id;
  select.Bind(1, below).Bind(2, state).Bind(3, limit);
  return RowsOf(select);
}

absl::StatusOr<std::optional<StoredJob>> JobStore::OldestQueued(int ranks) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare(absl::StrCat(kColumns, "WHERE state = ? AND (ranks = 0 OR ranks = ?) ORDER BY id LIMIT 1")));
  BEARING_ASSIGN_OR_RETURN(bool row, select.Bind(1, bearing::v1::JOB_STATE_QUEUED).Bind(2, ranks).Step());
  if (!row) return std::nullopt;
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, RowOf(select));
  return stored;
}

absl::StatusOr<std::vector<StoredJob>> JobStore::Held() {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(kColumns, "WHERE state IN (?, ?) ORDER BY id")));
  select.Bind(1, bearing::v1::JOB_STATE_RUNNING).Bind(2, bearing::v1::JOB_STATE_CANCELLING);
  return RowsOf(select);
}

}  // namespace bearing::coordinator
