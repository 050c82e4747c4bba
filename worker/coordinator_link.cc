#include "worker/coordinator_link.h"

#include <grpcpp/grpcpp.h>
#include <time.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "rpc/client_connection.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

using bearing::v1::WorkerService;

constexpr absl::Duration kCallDeadline = absl::Seconds(10);
// Progress goes out at most this often.
constexpr absl::Duration kReportEvery = absl::Milliseconds(500);
constexpr int kCompleteTries = 10;
// Of the lines before the outcome.
constexpr absl::Duration kLastReport = absl::Seconds(2);
constexpr size_t kMostLines = 1000;
constexpr size_t kLongestLine = 2048;

void SetDeadline(grpc::ClientContext& context, absl::Duration after) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + after));
}

// Stable names of failures for programs.
std::string ReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_INPUT";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "OUTPUT_IN_USE";
    case absl::StatusCode::kFailedPrecondition:
      return "CANNOT_RUN";
    case absl::StatusCode::kUnimplemented:
      return "UNSUPPORTED_MODEL";
    case absl::StatusCode::kDataLoss:
      return "CORRUPT_DATA";
    case absl::StatusCode::kResourceExhausted:
      return "OUT_OF_RESOURCES";
    default:
      return "INTERNAL";
  }
}

// "collect" of STAGE_COLLECT.
std::string StageText(bearing::v1::Stage stage) {
  return absl::AsciiStrToLower(absl::StripPrefix(bearing::v1::Stage_Name(stage), "STAGE_"));
}

// Goes on while the machine sleeps, unlike the steady clock.
std::chrono::nanoseconds SinceBoot() {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// The service with a token on each call.
class Caller {
 public:
  explicit Caller(std::unique_ptr<rpc::ClientConnection> connection)
      : connection_(std::move(connection)), stub_(WorkerService::NewStub(connection_->channel())) {}

  template <typename Method, typename Request, typename Response>
  absl::Status Call(const Method& method, absl::Duration deadline, const Request& request, Response* response) {
    grpc::ClientContext context;
    SetDeadline(context, deadline);
    BEARING_RETURN_IF_ERROR(connection_->Authorize(&context));
    return rpc::FromGrpc((stub_.get()->*method)(&context, request, response));
  }

 private:
  std::unique_ptr<rpc::ClientConnection> connection_;
  std::unique_ptr<WorkerService::Stub> stub_;
};

class LeasedJobImpl final : public LeasedJob {
 public:
  LeasedJobImpl(Caller* caller, std::string group_id, bearing::v1::Lease lease)
      : caller_(caller), group_id_(std::move(group_id)), lease_(std::move(lease)), kept_at_(SinceBoot()), thread_([this] {
          Beat();
        }) {}

  ~LeasedJobImpl() override { StopBeating(); }

  const bearing::v1::Lease& lease() const override { return lease_; }

  void OnProgress(const bearing::v1::Progress& progress) override {
    std::lock_guard lock(mutex_);
    if (progress.stage() != progress_.stage()) AddLine("info", absl::StrCat("stage ", StageText(progress.stage()), " started"));
    if (!progress.note().empty() && progress.note() != progress_.note()) AddLine("info", progress.note());
    progress_ = progress;
    changed_ = true;
    wake_.notify_all();
  }

  void OnStageDone(const bearing::v1::StageTime& time) override {
    std::lock_guard lock(mutex_);
    stage_times_.push_back(time);
    AddLine("info", time.shared()
                        ? absl::StrCat("stage ", StageText(time.stage()), ": the same as in an earlier job, taken from there")
                    : time.resumed() ? absl::StrCat("stage ", StageText(time.stage()), " was done before")
                                     : absl::StrFormat("stage %s took %.1f s", StageText(time.stage()), time.seconds()));
    changed_ = true;
    wake_.notify_all();
  }

  absl::Status ShouldStop() override {
    std::lock_guard lock(mutex_);
    // Without an answer for as long as the lease lives the coordinator may have given the job to others: fence ourselves.
    if (stop_reason_.ok() && SinceBoot() - kept_at_ > std::chrono::seconds(lease_.ttl_seconds())) {
      stop_reason_ = absl::AbortedError("the lease is lost: no answer from the coordinator for as long as it lives");
    }
    return stop_reason_;
  }

  void OnLog(const std::string& level, const std::string& text) override {
    std::lock_guard lock(mutex_);
    AddLine(level, text);
    changed_ = true;
    wake_.notify_all();
  }

  absl::Status Complete(const TaskOutcome& outcome) override {
    StopBeating();
    // The last lines belong to the log too; the outcome does not wait for them.
    if (!lines_.empty()) Report(/*patient=*/false).IgnoreError();
    bearing::v1::CompleteRequest request;
    request.set_group_id(group_id_);
    request.set_job_name(lease_.job_name());
    request.set_attempt(lease_.attempt());
    for (const bearing::v1::StageTime& time : stage_times_) *request.add_stage_times() = time;
    if (outcome.status.ok()) {
      *request.mutable_result() = outcome.result;
    } else if (absl::IsCancelled(outcome.status)) {
      request.set_cancelled(true);
    } else {
      request.mutable_error()->set_reason(ReasonOf(outcome.status));
      request.mutable_error()->set_message(std::string(outcome.status.message()));
      request.mutable_error()->set_stage(outcome.error_stage);
    }
    // The result must not be lost to a coordinator that is restarting.
    absl::Status status;
    for (int i = 0; i < kCompleteTries; ++i) {
      bearing::v1::CompleteResponse response;
      status = caller_->Call(&WorkerService::Stub::Complete, kCallDeadline, request, &response);
      if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
      absl::SleepFor(absl::Seconds(std::min(1 << i, 15)));
    }
    return status;
  }

 private:
  void StopBeating() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
      wake_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

  // With mutex_ held.
  void AddLine(const std::string& level, const std::string& text) {
    bearing::v1::WorkerLogLine& line = lines_.emplace_back();
    const absl::Time now = absl::Now();
    line.mutable_time()->set_seconds(absl::ToUnixSeconds(now));
    line.mutable_time()->set_nanos(static_cast<int32_t>((absl::ToUnixNanos(now)) % 1'000'000'000));
    line.set_rank(0);
    line.set_level(level);
    line.set_text(text.substr(0, kLongestLine));
    while (lines_.size() > kMostLines) {
      lines_.pop_front();
      ++first_line_;
    }
  }

  template <typename Request>
  Request About() const {
    Request request;
    request.set_group_id(group_id_);
    request.set_job_name(lease_.job_name());
    request.set_attempt(lease_.attempt());
    return request;
  }

  // Sends progress, stages and the lines that are not sent yet; they count as sent when the answer is there.
  absl::StatusOr<bool> Report(bool patient) {
    auto request = About<bearing::v1::ReportProgressRequest>();
    {
      std::lock_guard lock(mutex_);
      *request.mutable_progress() = progress_;
      for (const bearing::v1::StageTime& time : stage_times_) *request.add_stage_times() = time;
      for (const bearing::v1::WorkerLogLine& line : lines_) *request.add_log_lines() = line;
      request.set_first_line(first_line_);
    }
    bearing::v1::ReportProgressResponse response;
    BEARING_RETURN_IF_ERROR(
        caller_->Call(&WorkerService::Stub::ReportProgress, patient ? Patience() : kLastReport, request, &response));
    std::lock_guard lock(mutex_);
    while (!lines_.empty() && first_line_ < request.first_line() + request.log_lines_size()) {
      lines_.pop_front();
      ++first_line_;
    }
    return response.cancel();
  }

  // Of calls that keep the lease: some must fit into its time, for the first may be lost.
  absl::Duration Patience() const {
    return std::min(kCallDeadline, std::max(absl::Seconds(1), absl::Seconds(lease_.ttl_seconds()) / 3));
  }

  absl::StatusOr<bool> KeepLease() {
    bearing::v1::HeartbeatResponse response;
    BEARING_RETURN_IF_ERROR(
        caller_->Call(&WorkerService::Stub::Heartbeat, Patience(), About<bearing::v1::HeartbeatRequest>(), &response));
    return response.cancel();
  }

  void Beat() {
    const auto period = std::chrono::milliseconds(std::max(1, lease_.ttl_seconds()) * 1000 / 3);
    std::unique_lock lock(mutex_);
    while (!done_) {
      wake_.wait_for(lock, period, [this] { return done_ || changed_; });
      if (done_) return;
      const bool report = std::exchange(changed_, false);
      lock.unlock();
      const auto asked = SinceBoot();
      const absl::StatusOr<bool> cancel = report ? Report(/*patient=*/true) : KeepLease();
      lock.lock();
      if (cancel.ok()) {
        kept_at_ = asked;
        if (*cancel) stop_reason_ = absl::CancelledError("the job was cancelled");
      } else if (absl::IsAborted(cancel.status()) || absl::IsNotFound(cancel.status())) {
        stop_reason_ = absl::AbortedError(absl::StrCat("the lease is lost: ", std::string(cancel.status().message())));
      } else {
        changed_ = changed_ || report;
      }
      wake_.wait_for(lock, absl::ToChronoMilliseconds(kReportEvery), [this] { return done_; });
    }
  }

  Caller* const caller_;
  const std::string group_id_;
  const bearing::v1::Lease lease_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  bool changed_ = false;
  bearing::v1::Progress progress_;
  std::vector<bearing::v1::StageTime> stage_times_;
  std::deque<bearing::v1::WorkerLogLine> lines_;  // Not sent yet.
  int64_t first_line_ = 1;                        // Number of the first of them.
  absl::Status stop_reason_;
  // When the call was made by which the lease was kept last: the coordinator counts from no earlier moment. At first, when the
  // lease came, which is later than it was sent by the time of the answer.
  std::chrono::nanoseconds kept_at_;
  std::thread thread_;  // Last: starts when all else is there.
};

class CoordinatorLinkImpl final : public CoordinatorLink {
 public:
  CoordinatorLinkImpl(std::unique_ptr<rpc::ClientConnection> connection, const bearing::v1::WorkerGroup& group)
      : group_(group), caller_(std::move(connection)) {}

  absl::StatusOr<std::unique_ptr<LeasedJob>> Acquire(absl::Duration wait, const std::string& model_key) override {
    bearing::v1::AcquireLeaseRequest request;
    *request.mutable_group() = group_;
    request.mutable_group()->set_model_key(model_key);
    request.set_wait_seconds(static_cast<int32_t>(absl::ToInt64Seconds(wait)));
    bearing::v1::AcquireLeaseResponse response;
    BEARING_RETURN_IF_ERROR(caller_.Call(&WorkerService::Stub::AcquireLease, wait + kCallDeadline, request, &response));
    if (!response.has_lease()) return std::unique_ptr<LeasedJob>();
    return std::unique_ptr<LeasedJob>(std::make_unique<LeasedJobImpl>(&caller_, group_.id(), response.lease()));
  }

 private:
  const bearing::v1::WorkerGroup group_;
  Caller caller_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorLink>> CoordinatorLink::Connect(const std::string& address,
                                                                          const rpc::ClientSecurity& security,
                                                                          const bearing::v1::WorkerGroup& group) {
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<rpc::ClientConnection> connection, rpc::ClientConnection::Open(address, security));
  return std::make_unique<CoordinatorLinkImpl>(std::move(connection), group);
}

}  // namespace bearing::worker
