#include "cli/job_watcher.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "cli/job_names.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr absl::Duration kGiveUpAfter = absl::Seconds(30);
constexpr std::chrono::milliseconds kRetryPause(500);

}  // namespace

JobWatcher::JobWatcher(JobsClient& client, std::string name)
    : client_(client), name_(std::move(name)), last_message_(absl::Now()), thread_([this] { Run(); }) {}

JobWatcher::~JobWatcher() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  changed_.notify_all();
  thread_.join();
}

JobWatcher::News JobWatcher::Wait(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [this] { return !jobs_.empty() || over_; });
  News news{.jobs = std::exchange(jobs_, {}), .over = over_, .status = status_};
  return news;
}

void JobWatcher::Run() {
  while (true) {
    absl::Status status = ReadStream();
    std::unique_lock<std::mutex> lock(mutex_);
    if (stopping_) return;
    // A server may end a stream that is old; that is no reason to stop watching.
    const bool retry = !ended_ && (status.ok() || absl::IsUnavailable(status)) && (sequence_ > 0 || status.ok()) &&
                       absl::Now() - last_message_ < kGiveUpAfter;
    if (!retry) {
      if (!ended_ && status.ok()) status = absl::UnavailableError("the server ended the watch before the job ended");
      status_ = ended_ ? absl::OkStatus() : status;
      over_ = true;
      changed_.notify_all();
      return;
    }
    changed_.wait_for(lock, kRetryPause, [this] { return stopping_; });
    if (stopping_) return;
  }
}

absl::Status JobWatcher::ReadStream() {
  grpc::ClientContext* context = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return absl::CancelledError("stopped");
    context_ = std::make_unique<grpc::ClientContext>();
    context = context_.get();
  }
  bearing::v1::WatchJobRequest request;
  request.set_name(name_);
  request.set_after_sequence(sequence_);
  request.set_deltas(true);
  BEARING_ASSIGN_OR_RETURN(const auto reader, client_.Watch(context, request));
  bearing::v1::WatchJobResponse response;
  while (reader->Read(&response)) {
    last_message_ = absl::Now();
    if (response.keepalive()) continue;
    sequence_ = std::max(sequence_, response.sequence());
    ended_ = HasEnded(response.job().state());
    // What did not change is left out of all messages but the first of a stream.
    if (response.job().has_spec()) spec_ = response.job().spec();
    if (!response.job().has_spec()) *response.mutable_job()->mutable_spec() = spec_;
    if (!response.job().has_plan()) *response.mutable_job()->mutable_plan() = plan_;
    plan_ = response.job().plan();
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(*response.mutable_job()));
    changed_.notify_all();
  }
  return FromGrpc(reader->Finish(), client_.server());
}

}  // namespace bearing::cli
