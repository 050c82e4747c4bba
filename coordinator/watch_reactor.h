// One open WatchJob stream: a small queue between the feed and the client, with no thread of its own.
//
// A slow client coalesces: a change replaces the queued one before it when state and attempt are the same, so progress is
// thinned out and no change of state is ever lost. The stream ends after the final state.
#ifndef BEARING_COORDINATOR_WATCH_REACTOR_H_
#define BEARING_COORDINATOR_WATCH_REACTOR_H_

#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/jobs_service.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"

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

class WatchReactor final : public grpc::ServerWriteReactor<bearing::v1::WatchJobResponse>, public JobFeed::Subscriber {
 public:
  // Starts the stream (or its error). The reactor owns itself until gRPC is done with it. Store, feed and clock must outlive
  // the server.
  static WatchReactor* Start(const bearing::v1::WatchJobRequest& request, JobStore* store, JobFeed* feed, const Clock* clock,
                             std::chrono::milliseconds keepalive);

  void Offer(std::shared_ptr<const StoredJob> job) override;
  void Tick(SteadyTime now) override;
  void Close() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  WatchReactor(std::string job_name, JobFeed* feed, const Clock* clock, std::chrono::milliseconds keepalive);

  void Begin(const bearing::v1::WatchJobRequest& request, JobStore* store);
  // Ends the stream with `status` once nothing is queued.
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Writes or finishes if it can.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string job_name_;
  JobFeed* const feed_;
  const Clock* const clock_;
  const std::chrono::milliseconds keepalive_;
  std::shared_ptr<WatchReactor> self_;

  absl::Mutex mutex_;
  WatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  // False until the snapshot is queued: it must come first.
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  SteadyTime last_write_ ABSL_GUARDED_BY(mutex_);
  // Does the client want spec and plan only when they change?
  bool deltas_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the plan that was sent last; nullopt before the first message.
  std::optional<std::string> sent_plan_ ABSL_GUARDED_BY(mutex_);
  // What gRPC is sending; untouched while writing_.
  bearing::v1::WatchJobResponse message_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_WATCH_REACTOR_H_
