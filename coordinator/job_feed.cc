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
  subscribers_[job_name].push_back(std::move(subscriber));
  ++count_;
  return absl::OkStatus();
}

void JobFeed::Unsubscribe(const std::string& job_name, const Subscriber* subscriber) {
  absl::MutexLock lock(&mutex_);
  auto found = subscribers_.find(job_name);
  if (found == subscribers_.end()) return;
  count_ -= std::erase_if(found->second, [&](const auto& held) { return held.get() == subscriber; });
  if (found->second.empty()) subscribers_.erase(found);
}

void JobFeed::Publish(const StoredJob& job) {
  absl::MutexLock lock(&mutex_);
  auto found = subscribers_.find(job.job.name());
  if (found == subscribers_.end()) return;
  auto shared = std::make_shared<const StoredJob>(job);
  for (const auto& subscriber : found->second) subscriber->Offer(shared);
}

void JobFeed::PublishLogs(const std::string& job_name, LogLines lines) {
  if (lines.empty()) return;
  absl::MutexLock lock(&mutex_);
  auto found = subscribers_.find(job_name);
  if (found == subscribers_.end()) return;
  auto shared = std::make_shared<const LogLines>(std::move(lines));
  for (const auto& subscriber : found->second) subscriber->OfferLogs(shared);
}

size_t JobFeed::count() {
  absl::MutexLock lock(&mutex_);
  return count_;
}

void JobFeed::Tick(SteadyTime now) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, list] : subscribers_) {
    for (const auto& subscriber : list) subscriber->Tick(now);
  }
}

void JobFeed::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (const auto& [name, list] : subscribers_) {
    for (const auto& subscriber : list) subscriber->Close();
  }
}

}  // namespace bearing::coordinator
