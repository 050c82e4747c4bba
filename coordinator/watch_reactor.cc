#include "coordinator/watch_reactor.h"

#include <algorithm>
#include <utility>

namespace bearing::coordinator {

void WatchQueue::Push(std::shared_ptr<const StoredJob> job) {
  if (job->sequence <= newest_) return;
  newest_ = job->sequence;
  if (!queue_.empty()) {
    const bearing::v1::Job& last = queue_.back()->job;
    if (last.state() == job->job.state() && last.attempt() == job->job.attempt()) queue_.pop_back();
  }
  queue_.push_back(std::move(job));
}

std::shared_ptr<const StoredJob> WatchQueue::Pop() {
  if (queue_.empty()) return nullptr;
  std::shared_ptr<const StoredJob> first = std::move(queue_.front());
  queue_.pop_front();
  return first;
}

void WatchQueue::SkipUpTo(int64_t sequence) {
  while (!queue_.empty() && queue_.front()->sequence <= sequence) queue_.pop_front();
  newest_ = std::max(newest_, sequence);
}

WatchReactor::WatchReactor(std::string job_name, JobFeed* feed, const Clock* clock, std::chrono::milliseconds keepalive)
    : StreamReactor(std::move(job_name), feed, "watch again with after_sequence"),
      clock_(clock),
      keepalive_(keepalive),
      last_write_(clock->SteadyNow()) {}

WatchReactor* WatchReactor::Start(const bearing::v1::WatchJobRequest& request, JobStore* store, JobFeed* feed,
                                  const Clock* clock, std::chrono::milliseconds keepalive) {
  return StartHeld(std::shared_ptr<WatchReactor>(new WatchReactor(request.name(), feed, clock, keepalive)),
                   [&](WatchReactor& reactor) { reactor.Begin(request, store); });
}

void WatchReactor::Begin(const bearing::v1::WatchJobRequest& request, JobStore* store) {
  absl::Status status = Subscribe();
  absl::StatusOr<StoredJob> snapshot = absl::UnknownError("");
  if (status.ok()) {
    snapshot = store->Get(job_name());
    status = snapshot.status();
  }
  absl::MutexLock lock(&mutex_);
  begun_ = true;
  deltas_ = request.deltas();
  if (!status.ok()) return EndWith(status);
  const bool final = IsFinal(snapshot->job.state());
  // A number from the future is of another store: only the snapshot can help then.
  if (request.after_sequence() != snapshot->sequence) {
    queue_.Push(std::make_shared<const StoredJob>(*std::move(snapshot)));
  } else {
    queue_.SkipUpTo(request.after_sequence());
  }
  if (final) return EndWith(absl::OkStatus());
  Pump();
}

void WatchReactor::Offer(std::shared_ptr<const StoredJob> job) {
  absl::MutexLock lock(&mutex_);
  const bool final = IsFinal(job->job.state());
  queue_.Push(std::move(job));
  if (final) return EndWith(absl::OkStatus());
  Pump();
}

void WatchReactor::Tick(SteadyTime now) {
  absl::MutexLock lock(&mutex_);
  if (!IsIdle() || !queue_.empty() || now - last_write_ < keepalive_) return;
  const int64_t sequence = message_.sequence();
  message_.Clear();
  message_.set_keepalive(true);
  message_.set_sequence(sequence);
  Write();
}

void WatchReactor::DropQueue() {
  while (!queue_.empty()) queue_.Pop();
}

bool WatchReactor::FillMessage() {
  const std::shared_ptr<const StoredJob> next = queue_.Pop();
  if (next == nullptr) return false;
  message_.Clear();
  *message_.mutable_job() = next->job;
  message_.set_sequence(next->sequence);
  if (deltas_) {
    std::string plan = next->job.plan().SerializeAsString();
    // The spec of a job never changes.
    if (sent_plan_.has_value()) message_.mutable_job()->clear_spec();
    if (sent_plan_ == plan) message_.mutable_job()->clear_plan();
    sent_plan_ = std::move(plan);
  }
  return true;
}

}  // namespace bearing::coordinator
