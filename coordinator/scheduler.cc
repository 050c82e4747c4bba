#include "coordinator/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "coordinator/job_columns.h"
#include "coordinator/job_transitions.h"
#include "jobs/job_spec.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::Lease;
using bearing::v1::WorkerGroup;

// Names carry 24 random bits; a clash with an old job is drawn again.
constexpr int kNameDraws = 16;

// A job whose misfits are remembered: groups that have not asked for work for this long are gone.
constexpr std::chrono::minutes kGroupMemory{5};
constexpr int kRemovedAtOnce = 100;

bearing::v1::LostAttempt LostBecause(std::string message) {
  bearing::v1::LostAttempt how;
  how.set_message(std::move(message));
  return how;
}

// Empty when every rank can hold its weights.
std::string WhyItDoesNotFit(const ModelPlan& plan, const WorkerGroup& group) {
  // A group that does not know its memory says 0.
  if (group.memory_bytes_per_rank() <= 0) return "";
  const auto largest = std::max_element(plan.compute_bytes.begin(), plan.compute_bytes.end());
  if (largest == plan.compute_bytes.end() || *largest <= group.memory_bytes_per_rank()) return "";
  return absl::StrCat("the weights do not fit the memory of a rank: weight_bytes=", *largest,
                      " memory_bytes_per_rank=", group.memory_bytes_per_rank(), " rank=", largest - plan.compute_bytes.begin(),
                      " ranks=", group.ranks(), " group=", group.id());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(const SchedulerOptions& options, SchedulerParts parts) {
  std::unique_ptr<Scheduler> scheduler(new Scheduler(options, std::move(parts)));
  BEARING_ASSIGN_OR_RETURN(std::vector<StoredJob> held, scheduler->parts_.store->Held());
  absl::MutexLock lock(&scheduler->mutex_);
  for (const StoredJob& job : held) {
    scheduler->leases_[job.job.name()] = {job.group_id, job.job.attempt(),
                                          scheduler->parts_.clock->SteadyNow() + options.lease_time,
                                          scheduler->parts_.clock->SteadyNow(), /*lines=*/-1};
    scheduler->parts_.logger->info("lease taken up: job={} attempt={} group={}", job.job.name(), job.job.attempt(),
                                   job.group_id);
  }
  return scheduler;
}

absl::StatusOr<std::optional<StoredJob>> Scheduler::FindRequest(const RequestKey& request) {
  if (request.request_id.empty()) return std::nullopt;
  BEARING_ASSIGN_OR_RETURN(auto found, parts_.store->FindRequest(request.request_id));
  if (!found.has_value()) return std::nullopt;
  if (found->body_hash != request.body_hash) {
    return rpc::WithReason(absl::AlreadyExistsError(absl::StrCat("request_id: was used with another job before: request_id=",
                                                                 request.request_id, " job=", found->job.job.name())),
                           "REQUEST_ID_REUSED");
  }
  return std::move(found->job);
}

absl::StatusOr<StoredJob> Scheduler::Submit(const bearing::v1::JobSpec& spec, const Submission& submission) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> before, FindRequest(submission.request));
  if (before.has_value()) return *std::move(before);
  StoredJob stored;
  LogLines lines;
  absl::Status status;
  for (int draw = 0; draw < kNameDraws; ++draw) {
    const std::string name = submission.job_id.empty() ? NewName(spec.name()) : submission.job_id;
    stored.job = MakeQueued(name, spec, parts_.clock->WallNow());
    stored.job.set_owner(submission.owner);
    lines = LinesOf(stored);
    status = parts_.store->Insert(&stored, submission.request, &lines);
    if (!absl::IsAlreadyExists(status) || !submission.job_id.empty()) break;
  }
  if (absl::IsAlreadyExists(status) && !submission.job_id.empty()) {
    return rpc::WithReason(absl::AlreadyExistsError(absl::StrCat("job_id: is taken: job_id=", submission.job_id)),
                           "JOB_ID_TAKEN");
  }
  BEARING_RETURN_IF_ERROR(status);
  ++work_mark_;
  if (parts_.metrics != nullptr) parts_.metrics->CountTransition(stored.job);
  parts_.logger->info("job queued: job={} ranks={} priority={}", stored.job.name(), spec.ranks(), spec.priority());
  return stored;
}

absl::StatusOr<StoredJob> Scheduler::Cancel(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.store->Get(name));
  const bool asked_before = stored.job.state() == bearing::v1::JOB_STATE_CANCELLING;
  BEARING_RETURN_IF_ERROR(RequestCancel(&stored.job, parts_.clock->WallNow()));
  if (!asked_before) BEARING_RETURN_IF_ERROR(Commit(&stored));
  return stored;
}

absl::StatusOr<std::optional<Lease>> Scheduler::Acquire(const WorkerGroup& group) {
  {
    absl::MutexLock lock(&mutex_);
    ExpireLocked();
    BEARING_RETURN_IF_ERROR(EndLeasesOf(group.id(), LostBecause("its group asked for other work")));
    groups_[group.id()].seen = parts_.clock->SteadyNow();
  }
  const auto milliseconds = [](std::chrono::milliseconds time) { return std::max<int64_t>(1, time.count()); };
  QueueQuery query{.ranks = group.ranks(),
                   .model_key = group.model_key(),
                   .rise_ms = milliseconds(options_.priority_rise),
                   .patience_ms = milliseconds(options_.affinity_patience)};
  while (!closed()) {
    query.now_ms = absl::ToUnixMillis(absl::FromChrono(parts_.clock->WallNow()));
    query.skip = MisfitsOf(group);
    BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> next, parts_.store->NextQueued(query));
    if (!next.has_value()) return std::nullopt;
    // Outside the lock: reading the model's headers may take long on a network disk. HandOut sees whether the job is as it was.
    const bearing::v1::JobSpec& spec = next->job.spec();
    absl::StatusOr<ModelPlan> plan = ModelPlan();
    if (absl::Status allowed = parts_.paths.Check(spec); !allowed.ok()) {
      plan = std::move(allowed);
    } else {
      plan = parts_.checker->Plan(spec, jobs::TensorParallel(spec, group.ranks()));
    }
    absl::MutexLock lock(&mutex_);
    BEARING_ASSIGN_OR_RETURN(std::optional<Lease> lease, HandOut(*std::move(next), group, plan));
    if (lease.has_value()) return lease;
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<Lease>> Scheduler::HandOut(StoredJob stored, const WorkerGroup& group,
                                                        const absl::StatusOr<ModelPlan>& plan) {
  if (closed_) return std::nullopt;
  const WallTime now = parts_.clock->WallNow();
  std::string misfit = plan.ok() ? WhyItDoesNotFit(*plan, group) : "";
  if (!plan.ok()) {
    Fail(&stored.job, absl::IsPermissionDenied(plan.status()) ? kReasonPathNotAllowed : kReasonModelUnusable,
         std::string(plan.status().message()), now);
  } else if (!misfit.empty()) {
    if (!FitsNobody(stored.id, group)) {
      parts_.logger->info("job left for a larger group: job={} {}", stored.job.name(), misfit);
      return std::nullopt;
    }
    Fail(&stored.job, kReasonDoesNotFit, std::move(misfit), now);
  } else {
    StartAttempt(&stored.job, plan->plan, now);
    stored.group_id = group.id();
  }
  absl::Status status = Commit(&stored);
  if (absl::IsAborted(status)) return std::nullopt;
  BEARING_RETURN_IF_ERROR(status);
  if (IsFinal(stored.job.state())) return std::nullopt;

  const SteadyTime steady = parts_.clock->SteadyNow();
  leases_[stored.job.name()] = {group.id(), stored.job.attempt(), steady + options_.lease_time, steady, /*lines=*/0};
  Lease lease;
  lease.set_job_name(stored.job.name());
  lease.set_attempt(stored.job.attempt());
  lease.set_ttl_seconds(static_cast<int32_t>(options_.lease_time.count()));
  lease.set_model_key(ModelKey(stored.job.spec()));
  *lease.mutable_spec() = stored.job.spec();
  *lease.mutable_plan() = stored.job.plan();
  return lease;
}

absl::Status Scheduler::Delete(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(const StoredJob stored, parts_.store->Get(name));
  if (!IsFinal(stored.job.state())) {
    return rpc::WithReason(
        absl::FailedPreconditionError(absl::StrCat("the job has not ended; cancel it first: name=", name,
                                                   " state=", bearing::v1::JobState_Name(stored.job.state()))),
        "JOB_NOT_ENDED");
  }
  BEARING_RETURN_IF_ERROR(parts_.store->Delete(stored.id));
  parts_.logger->info("job deleted: job={}", name);
  return absl::OkStatus();
}

void Scheduler::RemoveOutdated() {
  if (options_.keep_ended.count() == 0 && options_.most_ended == 0) return;
  absl::MutexLock lock(&mutex_);
  const auto oldest = parts_.clock->WallNow() - options_.keep_ended;
  const int64_t before_ms = options_.keep_ended.count() == 0 ? 0 : absl::ToUnixMillis(absl::FromChrono(oldest));
  absl::StatusOr<std::vector<int64_t>> ids = parts_.store->Outdated(before_ms, options_.most_ended, kRemovedAtOnce);
  absl::Status status = ids.status();
  for (size_t i = 0; status.ok() && i < ids->size(); ++i) status = parts_.store->Delete((*ids)[i]);
  if (!status.ok()) parts_.logger->error("old jobs not removed: error={}", status.ToString());
  if (ids.ok() && !ids->empty()) parts_.logger->info("old jobs removed: count={}", ids->size());
}

int64_t Scheduler::NumLeases() {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(leases_.size());
}

void Scheduler::ExpireLeases() {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
}

uint64_t Scheduler::WaitForWork(uint64_t seen, std::chrono::milliseconds timeout) {
  absl::MutexLock lock(&mutex_);
  auto grown = [this, seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || work_mark_ != seen; };
  mutex_.AwaitWithTimeout(absl::Condition(&grown), absl::FromChrono(timeout));
  return work_mark_;
}

uint64_t Scheduler::WorkMark() {
  absl::MutexLock lock(&mutex_);
  return work_mark_;
}

void Scheduler::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

bool Scheduler::closed() {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

absl::Status Scheduler::Record(StoredJob* stored, LogLines lines) {
  BEARING_RETURN_IF_ERROR(parts_.store->Update(stored, &lines));
  parts_.feed->PublishLogs(stored->job.name(), std::move(lines));
  parts_.feed->Publish(*stored);
  return absl::OkStatus();
}

absl::Status Scheduler::Commit(StoredJob* stored) {
  BEARING_RETURN_IF_ERROR(Record(stored, LinesOf(*stored)));
  if (stored->job.state() == bearing::v1::JOB_STATE_QUEUED) ++work_mark_;
  if (parts_.metrics != nullptr) parts_.metrics->CountTransition(stored->job);
  parts_.logger->info("job changed: job={} state={} attempt={} sequence={} group={}{}{}", stored->job.name(),
                      bearing::v1::JobState_Name(stored->job.state()), stored->job.attempt(), stored->sequence,
                      stored->group_id, stored->job.has_error() ? " reason=" : "", stored->job.error().reason());
  return absl::OkStatus();
}

bool Scheduler::FitsNobody(int64_t job_id, const WorkerGroup& group) {
  groups_[group.id()].misfits.insert(job_id);
  return std::all_of(groups_.begin(), groups_.end(),
                     [job_id](const auto& entry) { return entry.second.misfits.contains(job_id); });
}

std::vector<int64_t> Scheduler::MisfitsOf(const WorkerGroup& group) {
  absl::MutexLock lock(&mutex_);
  const std::set<int64_t>& misfits = groups_[group.id()].misfits;
  return {misfits.begin(), misfits.end()};
}

absl::Status Scheduler::EndLease(const std::string& job_name, const bearing::v1::LostAttempt& how) {
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.store->Get(job_name));
  bearing::v1::LostAttempt lost = how;
  lost.set_group_id(stored.group_id);
  LoseAttempt(&stored.job, options_.max_attempts, std::move(lost), parts_.clock->WallNow());
  BEARING_RETURN_IF_ERROR(Commit(&stored));
  leases_.erase(job_name);
  if (parts_.metrics != nullptr) parts_.metrics->CountLostGroup();
  return absl::OkStatus();
}

absl::Status Scheduler::EndLeasesOf(const std::string& group_id, const bearing::v1::LostAttempt& how) {
  std::vector<std::string> names;
  for (const auto& [name, held] : leases_) {
    if (held.group_id == group_id) names.push_back(name);
  }
  for (const std::string& name : names) {
    parts_.logger->warn("lease given up: job={} group={} reason={}", name, group_id, how.message());
    BEARING_RETURN_IF_ERROR(EndLease(name, how));
  }
  return absl::OkStatus();
}

void Scheduler::ExpireLocked() {
  const SteadyTime now = parts_.clock->SteadyNow();
  const size_t gone = std::erase_if(groups_, [now](const auto& entry) { return entry.second.seen < now - kGroupMemory; });
  // What was left for a group that is gone is looked at again.
  for (auto& [id, group] : groups_) {
    if (gone > 0) group.misfits.clear();
  }
  std::vector<std::string> names;
  for (const auto& [name, held] : leases_) {
    if (held.expires <= now) names.push_back(name);
  }
  for (const std::string& name : names) {
    parts_.logger->warn("lease expired: job={} group={}", name, leases_[name].group_id);
    const absl::Status status =
        EndLease(name, LostBecause(absl::StrCat("no heartbeat for ", options_.lease_time.count(), " s")));
    // The lease stays in the table, dead by its time, and is ended at the next try.
    if (!status.ok()) parts_.logger->error("lease end not recorded: job={} error={}", name, status.ToString());
  }
}

std::string Scheduler::NewName(const std::string& prefix) {
  return absl::StrFormat("%s-%06x", prefix, parts_.random() & 0xffffff);
}

}  // namespace bearing::coordinator
