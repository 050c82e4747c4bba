#include "coordinator/scheduler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "coordinator/job_transitions.h"
#include "jobs/job_spec.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::Lease;
using bearing::v1::WorkerGroup;

// Names carry 24 random bits; a clash with an old job is drawn again.
constexpr int kNameDraws = 16;

absl::Status NotYours(const std::string& job_name, int attempt) {
  return absl::AbortedError(
      absl::StrCat("the lease is no longer this group's: stop work on the job: name=", job_name, " attempt=", attempt));
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
                                          scheduler->parts_.clock->SteadyNow() + options.lease_time};
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
    return absl::AlreadyExistsError(absl::StrCat(
        "request_id: was used with another job before: request_id=", request.request_id, " job=", found->job.job.name()));
  }
  return std::move(found->job);
}

absl::StatusOr<StoredJob> Scheduler::Submit(const bearing::v1::JobSpec& spec, const RequestKey& request) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> before, FindRequest(request));
  if (before.has_value()) return *std::move(before);
  StoredJob stored;
  absl::Status status;
  for (int draw = 0; draw < kNameDraws; ++draw) {
    stored.job = MakeQueued(NewName(spec.name()), spec, parts_.clock->WallNow());
    status = parts_.store->Insert(&stored, request);
    if (!absl::IsAlreadyExists(status)) break;
  }
  BEARING_RETURN_IF_ERROR(status);
  ++work_mark_;
  parts_.logger->info("job queued: job={} ranks={}", stored.job.name(), spec.ranks());
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
    BEARING_RETURN_IF_ERROR(EndLeasesOf(group.id()));
  }
  while (!closed()) {
    BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> oldest, parts_.store->OldestQueued(group.ranks()));
    if (!oldest.has_value()) return std::nullopt;
    // Outside the lock: reading the model's headers may take long on a network disk. HandOut sees whether the job is as it was.
    const bearing::v1::JobSpec& spec = oldest->job.spec();
    const absl::StatusOr<ModelPlan> plan = parts_.checker->Plan(spec, jobs::TensorParallel(spec, group.ranks()));
    absl::MutexLock lock(&mutex_);
    BEARING_ASSIGN_OR_RETURN(std::optional<Lease> lease, HandOut(*std::move(oldest), group, plan));
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
    Fail(&stored.job, kReasonModelUnusable, std::string(plan.status().message()), now);
  } else if (!misfit.empty()) {
    Fail(&stored.job, kReasonDoesNotFit, std::move(misfit), now);
  } else {
    StartAttempt(&stored.job, plan->plan, now);
    stored.group_id = group.id();
  }
  absl::Status status = Commit(&stored);
  if (absl::IsAborted(status)) return std::nullopt;
  BEARING_RETURN_IF_ERROR(status);
  if (IsFinal(stored.job.state())) return std::nullopt;

  leases_[stored.job.name()] = {group.id(), stored.job.attempt(), parts_.clock->SteadyNow() + options_.lease_time};
  Lease lease;
  lease.set_job_name(stored.job.name());
  lease.set_attempt(stored.job.attempt());
  lease.set_ttl_seconds(static_cast<int32_t>(options_.lease_time.count()));
  *lease.mutable_spec() = stored.job.spec();
  *lease.mutable_plan() = stored.job.plan();
  return lease;
}

absl::StatusOr<bool> Scheduler::Heartbeat(const bearing::v1::HeartbeatRequest& request) {
  absl::MutexLock lock(&mutex_);
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, HeldJob(request.group_id(), request.job_name(), request.attempt()));
  leases_[request.job_name()].expires = parts_.clock->SteadyNow() + options_.lease_time;
  const bool cancel = stored.job.state() == bearing::v1::JOB_STATE_CANCELLING;
  const std::string before = stored.job.SerializeAsString();
  if (request.has_progress()) *stored.job.mutable_progress() = request.progress();
  if (!request.stage_times().empty()) *stored.job.mutable_stage_times() = request.stage_times();
  if (stored.job.SerializeAsString() == before) return cancel;
  // Progress is worth less than the work: a disk that is full just now must not stop the group.
  if (absl::Status status = Record(&stored); !status.ok()) {
    parts_.logger->warn("progress not recorded: job={} error={}", request.job_name(), status.ToString());
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

absl::Status Scheduler::Record(StoredJob* stored) {
  BEARING_RETURN_IF_ERROR(parts_.store->Update(stored));
  parts_.feed->Publish(*stored);
  return absl::OkStatus();
}

absl::Status Scheduler::Commit(StoredJob* stored) {
  BEARING_RETURN_IF_ERROR(Record(stored));
  if (stored->job.state() == bearing::v1::JOB_STATE_QUEUED) ++work_mark_;
  parts_.logger->info("job changed: job={} state={} attempt={} sequence={} group={}{}{}", stored->job.name(),
                      bearing::v1::JobState_Name(stored->job.state()), stored->job.attempt(), stored->sequence,
                      stored->group_id, stored->job.has_error() ? " reason=" : "", stored->job.error().reason());
  return absl::OkStatus();
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

absl::Status Scheduler::EndLease(const std::string& job_name, std::string_view why) {
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.store->Get(job_name));
  LoseAttempt(&stored.job, options_.max_attempts, why, parts_.clock->WallNow());
  BEARING_RETURN_IF_ERROR(Commit(&stored));
  leases_.erase(job_name);
  return absl::OkStatus();
}

absl::Status Scheduler::EndLeasesOf(const std::string& group_id) {
  std::vector<std::string> names;
  for (const auto& [name, held] : leases_) {
    if (held.group_id == group_id) names.push_back(name);
  }
  for (const std::string& name : names) {
    parts_.logger->warn("lease given up: job={} group={}", name, group_id);
    BEARING_RETURN_IF_ERROR(EndLease(name, "its group asked for other work"));
  }
  return absl::OkStatus();
}

void Scheduler::ExpireLocked() {
  const SteadyTime now = parts_.clock->SteadyNow();
  std::vector<std::string> names;
  for (const auto& [name, held] : leases_) {
    if (held.expires <= now) names.push_back(name);
  }
  for (const std::string& name : names) {
    parts_.logger->warn("lease expired: job={} group={}", name, leases_[name].group_id);
    const absl::Status status = EndLease(name, absl::StrCat("no heartbeat for ", options_.lease_time.count(), " s"));
    // The lease stays in the table, dead by its time, and is ended at the next try.
    if (!status.ok()) parts_.logger->error("lease end not recorded: job={} error={}", name, status.ToString());
  }
}

std::string Scheduler::NewName(const std::string& prefix) {
  return absl::StrFormat("%s-%06x", prefix, parts_.random() & 0xffffff);
}

}  // namespace bearing::coordinator
