#include "coordinator/job_store.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/job_columns.h"
#include "coordinator/migrations.h"
#include "rpc/status_details.h"
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

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path, Failpoint failpoint) {
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
  return std::unique_ptr<JobStore>(new JobStore(std::move(database), std::move(failpoint)));
}

absl::Status JobStore::Commit(Transaction* transaction, const std::string& name) {
  if (failpoint_) failpoint_(name + ".before");
  BEARING_RETURN_IF_ERROR(transaction->Commit());
  if (failpoint_) failpoint_(name + ".after");
  return absl::OkStatus();
}

absl::Status JobStore::Insert(StoredJob* stored, const RequestKey& request, LogLines* lines) {
  absl::MutexLock lock(&mutex_);
  const std::string blob = stored->job.SerializeAsString();
  const std::string model_key = ModelKey(stored->job.spec());
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database_.get()));
  BEARING_ASSIGN_OR_RETURN(
      Statement insert, database_->Prepare("INSERT INTO jobs (name, state, ranks, attempt, sequence, group_id, job, priority, "
                                           "queued_ms, model_key) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)"));
  insert.BindText(1, stored->job.name()).Bind(2, stored->job.state()).Bind(3, stored->job.spec().ranks());
  insert.Bind(4, stored->job.attempt()).BindText(5, stored->group_id).BindBlob(6, blob);
  insert.Bind(7, stored->job.spec().priority()).Bind(8, ToMilliseconds(stored->job.create_time())).BindText(9, model_key);
  BEARING_RETURN_IF_ERROR(insert.Step().status());
  const int64_t id = database_->last_insert_id();
  if (!request.request_id.empty()) {
    BEARING_ASSIGN_OR_RETURN(Statement link,
                             database_->Prepare("INSERT INTO requests (request_id, body_hash, job_id) VALUES (?, ?, ?)"));
    link.BindText(1, request.request_id).BindText(2, request.body_hash).Bind(3, id);
    BEARING_RETURN_IF_ERROR(link.Step().status());
  }
  BEARING_RETURN_IF_ERROR(InsertLabels(database_.get(), id, stored->job.spec()));
  if (lines != nullptr) BEARING_RETURN_IF_ERROR(InsertLogLines(id, lines));
  BEARING_RETURN_IF_ERROR(Commit(transaction.get(), "insert"));
  stored->id = id;
  stored->sequence = 1;
  return absl::OkStatus();
}

absl::Status JobStore::Update(StoredJob* stored, LogLines* lines) {
  absl::MutexLock lock(&mutex_);
  const std::string blob = stored->job.SerializeAsString();
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database_.get()));
  BEARING_ASSIGN_OR_RETURN(
      Statement update, database_->Prepare("UPDATE jobs SET state = ?, attempt = ?, sequence = sequence + 1, group_id = ?, "
                                           "job = ?, ended_ms = ? WHERE id = ? AND sequence = ? AND state NOT IN (4, 5, 6)"));
  update.Bind(1, stored->job.state()).Bind(2, stored->job.attempt()).BindText(3, stored->group_id).BindBlob(4, blob);
  update.Bind(5, ToMilliseconds(stored->job.end_time())).Bind(6, stored->id).Bind(7, stored->sequence);
  BEARING_RETURN_IF_ERROR(update.Step().status());
  if (database_->changes() == 0) {
    return absl::AbortedError(
        absl::StrCat("job has changed or ended in between: name=", stored->job.name(), " sequence=", stored->sequence));
  }
  if (lines != nullptr) BEARING_RETURN_IF_ERROR(InsertLogLines(stored->id, lines));
  BEARING_RETURN_IF_ERROR(
      Commit(transaction.get(), absl::StrCat("update.", bearing::v1::JobState_Name(stored->job.state()).substr(10))));
  ++stored->sequence;
  return absl::OkStatus();
}

absl::Status JobStore::Delete(int64_t id) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database_.get()));
  for (const char* sql : {"DELETE FROM requests WHERE job_id = ?", "DELETE FROM jobs WHERE id = ? AND state IN (4, 5, 6)"}) {
    BEARING_ASSIGN_OR_RETURN(Statement remove, database_->Prepare(sql));
    BEARING_RETURN_IF_ERROR(remove.Bind(1, id).Step().status());
  }
  if (database_->changes() == 0) return absl::AbortedError(absl::StrCat("no such job has ended: id=", id));
  return Commit(transaction.get(), "delete");
}

absl::StatusOr<StoredJob> JobStore::Get(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(kColumns, "WHERE name = ?")));
  BEARING_ASSIGN_OR_RETURN(bool row, select.BindText(1, name).Step());
  if (!row) return rpc::WithReason(absl::NotFoundError(absl::StrCat("no such job: name=", name)), "JOB_NOT_FOUND");
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

absl::StatusOr<std::vector<StoredJob>> JobStore::List(const JobFilter& filter, int64_t before_id, int limit) {
  absl::MutexLock lock(&mutex_);
  const bool all = filter.state == bearing::v1::JOB_STATE_UNSPECIFIED;
  std::string sql = absl::StrCat(kColumns, "WHERE id < ?1 AND ", all ? "?2 = 0" : "state = ?2");
  int parameter = 3;
  for (size_t i = 0; i < filter.labels.size(); ++i, parameter += 2) {
    absl::StrAppend(&sql, " AND EXISTS (SELECT 1 FROM labels WHERE key = ?", parameter + 1, " AND value = ?", parameter + 2,
                    " AND job_id = jobs.id)");
  }
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(sql, " ORDER BY id DESC LIMIT ?3")));
  const int64_t below = before_id == 0 ? std::numeric_limits<int64_t>::max() : before_id;
  select.Bind(1, below).Bind(2, filter.state).Bind(3, limit);
  parameter = 4;
  for (const auto& [key, value] : filter.labels) {
    select.BindText(parameter, key).BindText(parameter + 1, value);
    parameter += 2;
  }
  return RowsOf(select);
}

absl::StatusOr<std::vector<int64_t>> JobStore::Outdated(int64_t before_ms, int64_t keep, int limit) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare("SELECT id FROM jobs WHERE state IN (4, 5, 6) AND (ended_ms < ?1 OR (?2 > 0 AND id NOT IN (SELECT id "
                         "FROM jobs WHERE state IN (4, 5, 6) ORDER BY ended_ms DESC, id DESC LIMIT ?2))) LIMIT ?3"));
  select.Bind(1, before_ms).Bind(2, keep).Bind(3, limit);
  std::vector<int64_t> ids;
  while (true) {
    BEARING_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return ids;
    ids.push_back(select.Int(0));
  }
}

absl::StatusOr<std::optional<StoredJob>> JobStore::NextQueued(const QueueQuery& query) {
  absl::MutexLock lock(&mutex_);
  const std::string fits =
      absl::StrCat("state = 1 AND (ranks = 0 OR ranks = ?1) AND id NOT IN (", absl::StrJoin(query.skip, ", "), ") ");
  // The oldest of each priority. SQLite takes the other columns from the row of the minimum.
  BEARING_ASSIGN_OR_RETURN(
      Statement heads,
      database_->Prepare(absl::StrCat("SELECT priority, MIN(id), queued_ms FROM jobs WHERE ", fits, "GROUP BY priority")));
  heads.Bind(1, query.ranks);
  int64_t best_rank = std::numeric_limits<int64_t>::min();
  int64_t best_id = 0;
  int64_t best_priority = 0;
  int64_t best_waited = 0;
  while (true) {
    BEARING_ASSIGN_OR_RETURN(const bool row, heads.Step());
    if (!row) break;
    const int64_t waited = std::max<int64_t>(0, query.now_ms - heads.Int(2));
    const int64_t rank = heads.Int(0) + waited / query.rise_ms;
    if (rank < best_rank || (rank == best_rank && heads.Int(1) > best_id)) continue;
    best_rank = rank;
    best_id = heads.Int(1);
    best_priority = heads.Int(0);
    best_waited = waited;
  }
  if (best_id == 0) return std::nullopt;
  if (!query.model_key.empty() && best_waited < query.patience_ms) {
    BEARING_ASSIGN_OR_RETURN(Statement same, database_->Prepare(absl::StrCat("SELECT MIN(id) FROM jobs WHERE ", fits,
                                                                             "AND priority = ?2 AND model_key = ?3")));
    same.Bind(1, query.ranks).Bind(2, best_priority).BindText(3, query.model_key);
    BEARING_ASSIGN_OR_RETURN(const bool row, same.Step());
    if (row && same.Int(0) != 0) best_id = same.Int(0);
  }
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(kColumns, "WHERE id = ?")));
  BEARING_ASSIGN_OR_RETURN(const bool row, select.Bind(1, best_id).Step());
  if (!row) return std::nullopt;
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, RowOf(select));
  return stored;
}

absl::StatusOr<std::map<JobState, int64_t>> JobStore::CountByState() {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare("SELECT state, COUNT(*) FROM jobs GROUP BY state"));
  std::map<JobState, int64_t> counts;
  while (true) {
    BEARING_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return counts;
    counts[static_cast<JobState>(select.Int(0))] = select.Int(1);
  }
}

absl::StatusOr<int64_t> JobStore::OldestQueuedSince() {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare("SELECT MIN(queued_ms) FROM jobs WHERE state = 1"));
  BEARING_RETURN_IF_ERROR(select.Step().status());
  return select.Int(0);
}

absl::StatusOr<std::vector<StoredJob>> JobStore::Held() {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(Statement select, database_->Prepare(absl::StrCat(kColumns, "WHERE state IN (?, ?) ORDER BY id")));
  select.Bind(1, bearing::v1::JOB_STATE_RUNNING).Bind(2, bearing::v1::JOB_STATE_CANCELLING);
  return RowsOf(select);
}

}  // namespace bearing::coordinator
