// One open StreamJobLogs stream: first what the store has, then what comes, with no thread of its own.
//
// Lines that a slow client has not taken wait here, at most as many as a job keeps; older ones are then left out, which the
// client sees as a gap in their numbers.
#ifndef BEARING_COORDINATOR_LOG_REACTOR_H_
#define BEARING_COORDINATOR_LOG_REACTOR_H_

#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "bearing/v1/jobs_service.pb.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/stream_reactor.h"

namespace bearing::coordinator {

class LogReactor final : public StreamReactor<bearing::v1::StreamJobLogsResponse> {
 public:
  // Starts the stream (or its error). The reactor owns itself until gRPC is done with it. Store and feed must outlive the
  // server.
  static LogReactor* Start(const bearing::v1::StreamJobLogsRequest& request, JobStore* store, JobFeed* feed);

  void Offer(std::shared_ptr<const StoredJob> job) override;
  void OfferLogs(std::shared_ptr<const LogLines> lines) override;
  void Tick(SteadyTime now) override {}

 private:
  LogReactor(std::string job_name, JobFeed* feed) : StreamReactor(std::move(job_name), feed, "ask again with after_number") {}

  void Begin(const bearing::v1::StreamJobLogsRequest& request, JobStore* store);
  void Push(const LogLines& lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FillMessage() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropQueue() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { queue_.clear(); }

  std::deque<bearing::v1::LogLine> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t newest_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_LOG_REACTOR_H_
