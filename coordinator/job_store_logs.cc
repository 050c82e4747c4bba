// The logs of jobs: a ring of the last lines of each.
#include <algorithm>
#include <utility>

#include "coordinator/job_columns.h"
#include "coordinator/job_store.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {

absl::Status JobStore::InsertLogLines(int64_t id, LogLines* lines) {
  if (lines->empty()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(Statement last, database_->Prepare("SELECT MAX(number) FROM log_lines WHERE job_id = ?"));
  BEARING_RETURN_IF_ERROR(last.Bind(1, id).Step().status());
  int64_t number = last.Int(0);
  BEARING_ASSIGN_OR_RETURN(Statement insert,
                           database_->Prepare("INSERT INTO log_lines (job_id, number, time_ms, attempt, rank, level, text) "
                                              "VALUES (?, ?, ?, ?, ?, ?, ?)"));
  for (bearing::v1::LogLine& line : *lines) {
    line.set_number(++number);
    insert.Reset();
    insert.Bind(1, id).Bind(2, line.number()).Bind(3, ToMilliseconds(line.time())).Bind(4, line.attempt());
    insert.Bind(5, line.rank()).BindText(6, line.level()).BindText(7, line.text());
    BEARING_RETURN_IF_ERROR(insert.Step().status());
  }
  BEARING_ASSIGN_OR_RETURN(Statement drop, database_->Prepare("DELETE FROM log_lines WHERE job_id = ? AND number <= ?"));
  return drop.Bind(1, id).Bind(2, number - kLongestLog).Step().status();
}

absl::Status JobStore::AppendLogs(int64_t id, LogLines* lines) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database_.get()));
  BEARING_RETURN_IF_ERROR(InsertLogLines(id, lines));
  return Commit(transaction.get(), "logs");
}

absl::StatusOr<LogLines> JobStore::ReadLogs(int64_t id, int64_t after, int tail, int limit) {
  absl::MutexLock lock(&mutex_);
  if (tail > 0) {
    BEARING_ASSIGN_OR_RETURN(Statement last, database_->Prepare("SELECT MAX(number) FROM log_lines WHERE job_id = ?"));
    BEARING_RETURN_IF_ERROR(last.Bind(1, id).Step().status());
    after = std::max(after, last.Int(0) - tail);
  }
  BEARING_ASSIGN_OR_RETURN(Statement select,
                           database_->Prepare("SELECT number, time_ms, attempt, rank, level, text FROM log_lines WHERE "
                                              "job_id = ? AND number > ? ORDER BY number LIMIT ?"));
  select.Bind(1, id).Bind(2, after).Bind(3, limit);
  LogLines lines;
  while (true) {
    BEARING_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return lines;
    bearing::v1::LogLine& line = lines.emplace_back();
    line.set_number(select.Int(0));
    SetMilliseconds(select.Int(1), line.mutable_time());
    line.set_attempt(static_cast<int32_t>(select.Int(2)));
    line.set_rank(static_cast<int32_t>(select.Int(3)));
    line.set_level(select.Bytes(4));
    line.set_text(select.Bytes(5));
  }
}

}  // namespace bearing::coordinator
