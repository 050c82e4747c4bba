#include "coordinator/job_feed.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/status_details.h"

namespace bearing::coordinator {

absl::Status JobFeed::Subscribe(const std::string& job_name, std::shared_ptr<Subscriber> subscriber) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return rpc::WithReason(absl::UnavailableError("the coordinator is shutting down"), "SHUTTING_DOWN");
  if (count_ >= max_subscribers_) {
    return rpc::WithReason(absl::ResourceExhaustedError(absl::StrCat("too many open watches: limit=", max_subscribers_)),
                           "TOO_MANY_WATCHES");
  }
  watched_[job_name].subscribers.push_back(std::move(subscriber));
  ++count_;
  return absl::OkStatus();
}

void JobFeed::Unsubscribe(const std::string& job_name, const Subscriber* subscriber) {
  absl::MutexLock lock(&mutex_);
  auto found = watched_.find(job_name);
  if (found == watched_.end()) return;
  count_ -= std::erase_if(found->second.subscribers, [&](const auto& held) { return held.get() == subscriber; });
  if (found->second.subscribers.empty()) watched_.erase(found);
}

void JobFeed::Tell(const Watched& watched, const std::shared_ptr<const StoredJob>& job) {
  for (const auto& subscriber : watched.subscribers) subscriber->Offer(job);
}

void JobFeed::Publish(const StoredJob& job) {
  absl::MutexLock lock(&mutex_);
  auto found = watched_.find(job.job.name());
  if (found == watched_.end()) return;
  Watched& watched = found->second;
  auto shared = std::make_shared<const StoredJob>(job);
  const bool progress = watched.state == job.job.state() && watched.attempt == job.job.attempt();
  watched.state = job.job.state();
  watched.attempt = job.job.attempt();
  if (progress && std::exchange(watched.told, true)) {
    watched.waiting = std::move(shared);
    return;
  }
  // The last progress of a state comes before the next state.
  if (watched.waiting != nullptr) Tell(watched, std::exchange(watched.waiting, nullptr));
  Tell(watched, shared);
}

void JobFeed::PublishLogs(const std::string& job_name, LogLines lines) {
  if (lines.empty()) return;
  absl::MutexLock lock(&mutex_);
  auto found = watched_.find(job_name);
  if (found == watched_.end()) return;
  auto shared = std::make_shared<const LogLines>(std::move(lines));
  for (const auto& subscriber : found->second.subscribers) subscriber->OfferLogs(shared);
}

size_t JobFeed::count() {
  absl::MutexLock lock(&mutex_);
  return count_;
}

void JobFeed::Tick(SteadyTime now) {
  absl::MutexLock lock(&mutex_);
  for (auto& [name, watched] : watched_) {
    watched.told = watched.waiting != nullptr;
    if (watched.told) Tell(watched, std::exchange(watched.waiting, nullptr));
    for (const auto& subscriber : watched.subscribers) subscriber->Tick(now);
  }
}

void JobFeed::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (const auto& [name, watched] : watched_) {
    for (const auto& subscriber : watched.subscribers) subscriber->Close();
  }
}

}  // namespace bearing::coordinator
