// What worker groups say about the jobs they hold, and the lines that jobs have in their logs.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/job_columns.h"
#include "coordinator/job_transitions.h"
#include "coordinator/scheduler.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

constexpr size_t kLongestLine = 2048;
// Of the coordinator's own lines in a job's log.
constexpr int kCoordinatorRank = -1;

absl::Status NotYours(const std::string& job_name, int attempt) {
  return rpc::WithReason(absl::AbortedError(absl::StrCat("the lease is no longer this group's: stop work on the job: name=",
                                                         job_name, " attempt=", attempt)),
                         "LEASE_LOST");
}

// The lines of a report that are not stored yet, cut to their longest. `known` of this attempt are; -1 = as many as come
// before.
LogLines NewLines(const bearing::v1::ReportProgressRequest& request, int64_t known) {
  LogLines lines;
  const int64_t first = request.first_line();
  for (int i = 0; i < std::min(request.log_lines_size(), JobStore::kLongestLog); ++i) {
    const bearing::v1::WorkerLogLine& said = request.log_lines(i);
    if (known >= 0 && first + i <= known) continue;
    bearing::v1::LogLine& line = lines.emplace_back();
    *line.mutable_time() = said.time();
    line.set_attempt(request.attempt());
    line.set_rank(said.rank());
    line.set_level(said.level() == "warning" || said.level() == "error" ? said.level() : "info");
    line.set_text(said.text().substr(0, kLongestLine));
  }
  return lines;
}

}  // namespace

absl::StatusOr<bool> Scheduler::Heartbeat(const bearing::v1::HeartbeatRequest& request) {
  bearing::v1::ReportProgressRequest report;
  report.set_group_id(request.group_id());
  report.set_job_name(request.job_name());
  report.set_attempt(request.attempt());
  if (request.has_progress()) *report.mutable_progress() = request.progress();
  *report.mutable_stage_times() = request.stage_times();
  return ReportProgress(report);
}

absl::StatusOr<bool> Scheduler::ReportProgress(const bearing::v1::ReportProgressRequest& request) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, HeldJob(request.group_id(), request.job_name(), request.attempt()));
  Held& held = leases_[request.job_name()];
  held.expires = parts_.clock->SteadyNow() + options_.lease_time;
  groups_[request.group_id()].seen = parts_.clock->SteadyNow();
  const bool cancel = stored.job.state() == bearing::v1::JOB_STATE_CANCELLING;
  if (parts_.metrics != nullptr && request.has_progress()) {
    const std::chrono::duration<double> since = parts_.clock->SteadyNow() - held.reported;
    parts_.metrics->CountProgress(stored.job.progress(), request.progress(), since.count());
    held.reported = parts_.clock->SteadyNow();
  }
  LogLines lines = NewLines(request, held.lines);
  const int64_t count = static_cast<int64_t>(lines.size());
  const std::string before = stored.job.SerializeAsString();
  if (request.has_progress()) *stored.job.mutable_progress() = request.progress();
  if (!request.stage_times().empty()) *stored.job.mutable_stage_times() = request.stage_times();
  const bool changed = stored.job.SerializeAsString() != before;
  if (!changed && lines.empty()) return cancel;
  // Progress is worth less than the work: a disk that is full just now must not stop the group.
  absl::Status status = changed ? Record(&stored, std::move(lines)) : RecordLines(stored, std::move(lines));
  if (!status.ok()) {
    parts_.logger->warn("progress not recorded: job={} error={}", request.job_name(), status.ToString());
  } else if (count > 0) {
    held.lines = request.first_line() + request.log_lines_size() - 1;
  }
  return cancel;
}

absl::Status Scheduler::Complete(const bearing::v1::CompleteRequest& request) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<StoredJob> stored = HeldJob(request.group_id(), request.job_name(), request.attempt());
  if (absl::IsAborted(stored.status())) {
    // The answer to an earlier Complete may have been lost on its way.
    BEARING_ASSIGN_OR_RETURN(StoredJob now, parts_.store->Get(request.job_name()));
    const bool same_lease = now.group_id == request.group_id() && now.job.attempt() == request.attempt();
    if (same_lease && HasOutcome(now.job, request)) return absl::OkStatus();
  }
  BEARING_RETURN_IF_ERROR(stored.status());
  BEARING_RETURN_IF_ERROR(ApplyOutcome(&stored->job, request, parts_.clock->WallNow()));
  BEARING_RETURN_IF_ERROR(Commit(&*stored));
  leases_.erase(request.job_name());
  return absl::OkStatus();
}

absl::Status Scheduler::ReportExit(const bearing::v1::ReportExitRequest& request) {
  bearing::v1::LostAttempt how;
  const std::string who = request.has_rank() ? absl::StrCat("rank ", request.rank()) : "the group";
  if (request.signal() != 0) {
    how.set_message(absl::StrCat(who, " was ended by signal ", request.signal(), " (", strsignal(request.signal()), ")"));
  } else {
    how.set_message(absl::StrCat(who, " ended with exit status ", request.exit_status()));
  }
  if (request.has_rank()) how.set_rank(request.rank());
  how.set_signal(request.signal());
  how.set_exit_status(request.exit_status());
  absl::MutexLock lock(&mutex_);
  groups_.erase(request.group_id());
  return EndLeasesOf(request.group_id(), how);
}

absl::StatusOr<StoredJob> Scheduler::HeldJob(const std::string& group_id, const std::string& job_name, int attempt) {
  ExpireLocked();
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.store->Get(job_name));
  auto held = leases_.find(job_name);
  // The time is compared here too: the store may have refused to record the expiry.
  if (held == leases_.end() || held->second.group_id != group_id || held->second.attempt != attempt ||
      held->second.expires <= parts_.clock->SteadyNow()) {
    return NotYours(job_name, attempt);
  }
  return stored;
}

absl::Status Scheduler::RecordLines(const StoredJob& stored, LogLines lines) {
  BEARING_RETURN_IF_ERROR(parts_.store->AppendLogs(stored.id, &lines));
  parts_.feed->PublishLogs(stored.job.name(), std::move(lines));
  return absl::OkStatus();
}

LogLines Scheduler::LinesOf(const StoredJob& stored) const {
  const bearing::v1::Job& job = stored.job;
  LogLines lines(1);
  bearing::v1::LogLine& line = lines[0];
  SetMilliseconds(absl::ToUnixMillis(absl::FromChrono(parts_.clock->WallNow())), line.mutable_time());
  line.set_attempt(job.attempt());
  line.set_rank(kCoordinatorRank);
  line.set_level("info");
  switch (job.state()) {
    case bearing::v1::JOB_STATE_QUEUED:
      line.set_text(job.attempt() == 0
                        ? absl::StrCat("queued with priority ", job.spec().priority())
                        : absl::StrCat("worker group lost: ", job.lost_attempts(job.lost_attempts_size() - 1).message(),
                                       "; queued again"));
      if (job.attempt() > 0) line.set_level("warning");
      break;
    case bearing::v1::JOB_STATE_RUNNING:
      line.set_text(absl::StrCat("attempt ", job.attempt(), " started by group ", stored.group_id));
      break;
    case bearing::v1::JOB_STATE_CANCELLING:
      line.set_text("cancelling");
      break;
    case bearing::v1::JOB_STATE_FAILED:
      line.set_level("error");
      line.set_text(absl::StrCat("failed: ", job.error().reason(), ": ", job.error().message()).substr(0, kLongestLine));
      break;
    default:
      line.set_text(job.state() == bearing::v1::JOB_STATE_SUCCEEDED ? "succeeded" : "cancelled");
  }
  return lines;
}

}  // namespace bearing::coordinator
