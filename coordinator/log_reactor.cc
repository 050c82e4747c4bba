#include "coordinator/log_reactor.h"

#include <utility>

#include "rpc/status_details.h"

namespace bearing::coordinator {
namespace {

constexpr int kLinesInAMessage = 100;

}  // namespace

LogReactor* LogReactor::Start(const bearing::v1::StreamJobLogsRequest& request, JobStore* store, JobFeed* feed) {
  // `held` keeps the reactor alive to the end of this function, even if the stream is over before that.
  std::shared_ptr<LogReactor> held(new LogReactor(request.name(), feed));
  held->self_ = held;
  held->Begin(request, store);
  return held.get();
}

void LogReactor::Begin(const bearing::v1::StreamJobLogsRequest& request, JobStore* store) {
  // Subscribed before the store is read: no line falls between. What comes twice is known by its number.
  absl::Status status = feed_->Subscribe(job_name_, self_);
  absl::StatusOr<StoredJob> job = absl::UnknownError("");
  if (status.ok() && (request.after_number() < 0 || request.tail() < 0)) {
    status = absl::InvalidArgumentError("after_number: neither it nor tail may be negative");
  }
  if (status.ok()) {
    job = store->Get(job_name_);
    status = job.status();
  }
  absl::StatusOr<LogLines> lines = LogLines();
  if (status.ok()) {
    lines = store->ReadLogs(job->id, request.after_number(), request.tail(), JobStore::kLongestLog);
    status = lines.status();
  }
  absl::MutexLock lock(&mutex_);
  begun_ = true;
  if (!status.ok()) {
    queue_.clear();
    return EndWith(status);
  }
  std::deque<bearing::v1::LogLine> arrived = std::exchange(queue_, {});
  newest_ = request.after_number();
  Push(*lines);
  Push(LogLines(arrived.begin(), arrived.end()));
  if (!request.follow() || IsFinal(job->job.state())) return EndWith(absl::OkStatus());
  Pump();
}

void LogReactor::Push(const LogLines& lines) {
  for (const bearing::v1::LogLine& line : lines) {
    if (line.number() <= newest_) continue;
    newest_ = line.number();
    queue_.push_back(line);
  }
  while (queue_.size() > JobStore::kLongestLog) queue_.pop_front();
}

void LogReactor::Offer(std::shared_ptr<const StoredJob> job) {
  absl::MutexLock lock(&mutex_);
  if (IsFinal(job->job.state())) EndWith(absl::OkStatus());
}

void LogReactor::OfferLogs(std::shared_ptr<const LogLines> lines) {
  absl::MutexLock lock(&mutex_);
  if (end_.has_value()) return;
  Push(*lines);
  Pump();
}

void LogReactor::Close() {
  absl::MutexLock lock(&mutex_);
  EndWith(rpc::WithReason(absl::UnavailableError("the coordinator is shutting down; ask again with after_number"),
                          "SHUTTING_DOWN"));
}

void LogReactor::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  if (!ok) {
    queue_.clear();
    EndWith(absl::CancelledError("the reader went away"));
  }
  Pump();
}

void LogReactor::OnCancel() {
  absl::MutexLock lock(&mutex_);
  queue_.clear();
  EndWith(absl::CancelledError("the reader went away"));
}

void LogReactor::OnDone() {
  feed_->Unsubscribe(job_name_, this);
  // The last owner may be this one: nothing of the reactor is touched after it is released.
  std::shared_ptr<LogReactor> last = std::move(self_);
}

void LogReactor::EndWith(const absl::Status& status) {
  if (!end_.has_value()) end_ = status;
  Pump();
}

void LogReactor::Pump() {
  if (!begun_ || writing_ || finished_) return;
  if (!queue_.empty()) {
    message_.Clear();
    for (int i = 0; i < kLinesInAMessage && !queue_.empty(); ++i) {
      *message_.add_lines() = std::move(queue_.front());
      queue_.pop_front();
    }
    writing_ = true;
    StartWrite(&message_);
  } else if (end_.has_value()) {
    finished_ = true;
    Finish(rpc::ToGrpc(*end_));
  }
}

}  // namespace bearing::coordinator
