#include "coordinator/log_reactor.h"

#include <utility>

namespace bearing::coordinator {
namespace {

constexpr int kLinesInAMessage = 100;

}  // namespace

LogReactor* LogReactor::Start(const bearing::v1::StreamJobLogsRequest& request, JobStore* store, JobFeed* feed) {
  return StartHeld(std::shared_ptr<LogReactor>(new LogReactor(request.name(), feed)),
                   [&](LogReactor& reactor) { reactor.Begin(request, store); });
}

void LogReactor::Begin(const bearing::v1::StreamJobLogsRequest& request, JobStore* store) {
  // Subscribed before the store is read: no line falls between. What comes twice is known by its number.
  absl::Status status = Subscribe();
  absl::StatusOr<StoredJob> job = absl::UnknownError("");
  if (status.ok() && (request.after_number() < 0 || request.tail() < 0)) {
    status = absl::InvalidArgumentError("after_number: neither it nor tail may be negative");
  }
  if (status.ok()) {
    job = store->Get(job_name());
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
  if (HasEnd()) return;
  Push(*lines);
  Pump();
}

bool LogReactor::FillMessage() {
  if (queue_.empty()) return false;
  message_.Clear();
  for (int i = 0; i < kLinesInAMessage && !queue_.empty(); ++i) {
    *message_.add_lines() = std::move(queue_.front());
    queue_.pop_front();
  }
  return true;
}

}  // namespace bearing::coordinator
