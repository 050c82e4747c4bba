// What the open streams of a job share (WatchJob, StreamJobLogs): a life that ends when gRPC says so, one write at a time, and
// an end that comes after what is queued. No thread of its own.
//
// A reactor says what to send and when it is over; this class does the rest. Thread-safe: gRPC and the feed call from threads
// of their own.
#ifndef BEARING_COORDINATOR_STREAM_REACTOR_H_
#define BEARING_COORDINATOR_STREAM_REACTOR_H_

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/job_feed.h"
#include "rpc/status_details.h"

namespace bearing::coordinator {

template <typename Response>
class StreamReactor : public grpc::ServerWriteReactor<Response>, public JobFeed::Subscriber {
 public:
  void Close() final {
    absl::MutexLock lock(&mutex_);
    EndWith(rpc::WithReason(absl::UnavailableError(absl::StrCat("the coordinator is shutting down; ", come_back_)),
                            "SHUTTING_DOWN"));
  }

  void OnWriteDone(bool ok) final {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    OnWritten();
    if (ok) return Pump();
    LeaveReader();
  }

  void OnCancel() final {
    absl::MutexLock lock(&mutex_);
    LeaveReader();
  }

  void OnDone() final {
    feed_->Unsubscribe(job_name_, this);
    // The last owner may be this one: nothing of the reactor is touched after it is released.
    std::shared_ptr<StreamReactor> last = std::move(self_);
  }

 protected:
  // `come_back` tells a client that is sent away how to go on. The feed must outlive the server.
  StreamReactor(std::string job_name, JobFeed* feed, const char* come_back)
      : job_name_(std::move(job_name)), feed_(feed), come_back_(come_back) {}

  // Lets the reactor own itself until gRPC is done with it, and calls `begin` on it. `held` keeps it alive to the end of this
  // function, even if the stream is over before that.
  template <typename Reactor, typename Begin>
  static Reactor* StartHeld(std::shared_ptr<Reactor> held, const Begin& begin) {
    held->self_ = held;
    begin(*held);
    return held.get();
  }

  // Changes of the job come from here on.
  absl::Status Subscribe() { return feed_->Subscribe(job_name_, self_); }

  // Fills message_ with what is queued; false when there is nothing.
  virtual bool FillMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  virtual void DropQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  virtual void OnWritten() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // Ends the stream with `status` once nothing is queued; the first status counts.
  void EndWith(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!end_.has_value()) end_ = status;
    Pump();
  }

  // Writes or finishes if it can.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!IsIdle()) return;
    if (FillMessage()) return Write();
    if (!end_.has_value()) return;
    finished_ = true;
    this->Finish(rpc::ToGrpc(*end_));
  }

  // Could something be written now?
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return begun_ && !writing_ && !finished_; }
  bool HasEnd() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_.has_value(); }

  // Sends message_; IsIdle() must hold.
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    this->StartWrite(&message_);
  }

  const std::string& job_name() const { return job_name_; }

  absl::Mutex mutex_;
  // False until what the store has is queued: it must come first.
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  // What gRPC is sending; untouched while a write goes on.
  Response message_;

 private:
  void LeaveReader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    DropQueue();
    EndWith(absl::CancelledError("the reader went away"));
  }

  const std::string job_name_;
  JobFeed* const feed_;
  const char* const come_back_;
  std::shared_ptr<StreamReactor> self_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_STREAM_REACTOR_H_
