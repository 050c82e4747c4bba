// One open WatchJob stream: a small queue between the feed and the client, with no thread of its own.
//
// A slow client coalesces: a change replaces the queued one before it when state and attempt are the same, so progress is
// thinned out and no change of state is ever lost. The stream ends after the final state.
#ifndef BEARING_COORDINATOR_WATCH_REACTOR_H_
#define BEARING_COORDINATOR_WATCH_REACTOR_H_

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "bearing/v1/jobs_service.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/stream_reactor.h"

namespace bearing::coordinator {

// The queue, apart from gRPC. Not thread-safe.
class WatchQueue {
 public:
  void Push(std::shared_ptr<const StoredJob> job);
  // nullptr when empty.
  std::shared_ptr<const StoredJob> Pop();
  bool empty() const { return queue_.empty(); }
  // Drops what the client knows already.
  void SkipUpTo(int64_t sequence);

 private:
  int64_t newest_ = 0;
  std::deque<std::shared_ptr<const StoredJob>> queue_;
};

class WatchReactor final : public StreamReactor<bearing::v1::WatchJobResponse> {
 public:
  // Starts the stream (or its error). The reactor owns itself until gRPC is done with it. Store, feed and clock must outlive
  // the server.
  static WatchReactor* Start(const bearing::v1::WatchJobRequest& request, JobStore* store, JobFeed* feed, const Clock* clock,
                             std::chrono::milliseconds keepalive);

  void Offer(std::shared_ptr<const StoredJob> job) override;
  void Tick(SteadyTime now) override;

 private:
  WatchReactor(std::string job_name, JobFeed* feed, const Clock* clock, std::chrono::milliseconds keepalive);

  void Begin(const bearing::v1::WatchJobRequest& request, JobStore* store);
  bool FillMessage() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropQueue() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnWritten() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { last_write_ = clock_->SteadyNow(); }

  const Clock* const clock_;
  const std::chrono::milliseconds keepalive_;

  WatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  SteadyTime last_write_ ABSL_GUARDED_BY(mutex_);
  // Does the client want spec and plan only when they change?
  bool deltas_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the plan that was sent last; nullopt before the first message.
  std::optional<std::string> sent_plan_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_WATCH_REACTOR_H_
