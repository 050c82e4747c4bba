// One open StreamJobLogs stream: first what the store has, then what comes, with no thread of its own.
//
// Lines that a slow client has not taken wait here, at most as many as a job keeps; older ones are then left out, which the
// client sees as a gap in their numbers.
#ifndef BEARING_COORDINATOR_LOG_REACTOR_H_
#define BEARING_COORDINATOR_LOG_REACTOR_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/jobs_service.pb.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"

namespace bearing::coordinator {

class LogReactor final : public grpc::ServerWriteReactor<bearing::v1::StreamJobLogsResponse>, public JobFeed::Subscriber {
 public:
  // Starts the stream (or its error). The reactor owns itself until gRPC is done with it. Store and feed must outlive the
  // server.
  static LogReactor* Start(const bearing::v1::StreamJobLogsRequest& request, JobStore* store, JobFeed* feed);

  void Offer(std::shared_ptr<const StoredJob> job) override;
  void OfferLogs(std::shared_ptr<const LogLines> lines) override;
  void Tick(SteadyTime now) override {}
  void Close() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  LogReactor(std::string job_name, JobFeed* feed) : job_name_(std::move(job_name)), feed_(feed) {}

  void Begin(const bearing::v1::StreamJobLogsRequest& request, JobStore* store);
  void Push(const LogLines& lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string job_name_;
  JobFeed* const feed_;
  std::shared_ptr<LogReactor> self_;

  absl::Mutex mutex_;
  std::deque<bearing::v1::LogLine> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t newest_ ABSL_GUARDED_BY(mutex_) = 0;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  // What gRPC is sending; untouched while writing_.
  bearing::v1::StreamJobLogsResponse message_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_LOG_REACTOR_H_
