#include "worker/coordinator_link.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bearing/v1/worker_service.grpc.pb.h"

namespace bearing::worker {
namespace {

using bearing::v1::WorkerService;

constexpr absl::Duration kCallDeadline = absl::Seconds(10);
// Progress goes out at most this often.
constexpr absl::Duration kReportEvery = absl::Milliseconds(500);
constexpr int kCompleteTries = 10;

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

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

class LeasedJobImpl final : public LeasedJob {
 public:
  LeasedJobImpl(WorkerService::Stub* stub, std::string group_id, bearing::v1::Lease lease)
      : stub_(stub), group_id_(std::move(group_id)), lease_(std::move(lease)), thread_([this] { Beat(); }) {}

  ~LeasedJobImpl() override { StopBeating(); }

  const bearing::v1::Lease& lease() const override { return lease_; }

  void OnProgress(const bearing::v1::Progress& progress) override {
    std::lock_guard lock(mutex_);
    progress_ = progress;
    changed_ = true;
    wake_.notify_all();
  }

  void OnStageDone(const bearing::v1::StageTime& time) override {
    std::lock_guard lock(mutex_);
    stage_times_.push_back(time);
    changed_ = true;
    wake_.notify_all();
  }

  absl::Status ShouldStop() override {
    std::lock_guard lock(mutex_);
    return stop_reason_;
  }

  absl::Status Complete(const TaskOutcome& outcome) override {
    StopBeating();
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
      grpc::ClientContext context;
      SetDeadline(context, kCallDeadline);
      bearing::v1::CompleteResponse response;
      status = FromGrpc(stub_->Complete(&context, request, &response));
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

  void Beat() {
    const auto period = std::chrono::milliseconds(std::max(1, lease_.ttl_seconds()) * 1000 / 3);
    absl::Time last_answer = absl::Now();
    std::unique_lock lock(mutex_);
    while (!done_) {
      wake_.wait_for(lock, period, [this] { return done_ || changed_; });
      if (done_) return;
      changed_ = false;
      bearing::v1::HeartbeatRequest request;
      request.set_group_id(group_id_);
      request.set_job_name(lease_.job_name());
      request.set_attempt(lease_.attempt());
      *request.mutable_progress() = progress_;
      for (const bearing::v1::StageTime& time : stage_times_) *request.add_stage_times() = time;
      lock.unlock();
      grpc::ClientContext context;
      SetDeadline(context, kCallDeadline);
      bearing::v1::HeartbeatResponse response;
      const absl::Status status = FromGrpc(stub_->Heartbeat(&context, request, &response));
      lock.lock();
      if (status.ok()) {
        last_answer = absl::Now();
        if (response.cancel()) stop_reason_ = absl::CancelledError("the job was cancelled");
      } else if (absl::IsAborted(status) || absl::IsNotFound(status)) {
        stop_reason_ = absl::AbortedError(absl::StrCat("the lease is lost: ", std::string(status.message())));
      } else if (absl::Now() - last_answer > absl::Seconds(lease_.ttl_seconds())) {
        // The coordinator may have given the job to others by now: fence ourselves.
        stop_reason_ = absl::AbortedError("the coordinator did not answer for as long as the lease lives");
      }
      wake_.wait_for(lock, absl::ToChronoMilliseconds(kReportEvery), [this] { return done_; });
    }
  }

  WorkerService::Stub* stub_;
  const std::string group_id_;
  const bearing::v1::Lease lease_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  bool changed_ = false;
  bearing::v1::Progress progress_;
  std::vector<bearing::v1::StageTime> stage_times_;
  absl::Status stop_reason_;
  std::thread thread_;  // Last: starts when all else is there.
};

class CoordinatorLinkImpl final : public CoordinatorLink {
 public:
  CoordinatorLinkImpl(const std::string& address, const bearing::v1::WorkerGroup& group) : group_(group) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
    arguments.SetMaxReceiveMessageSize(16 << 20);
    stub_ = WorkerService::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  absl::StatusOr<std::unique_ptr<LeasedJob>> Acquire(absl::Duration wait) override {
    bearing::v1::AcquireLeaseRequest request;
    *request.mutable_group() = group_;
    request.set_wait_seconds(static_cast<int32_t>(absl::ToInt64Seconds(wait)));
    grpc::ClientContext context;
    SetDeadline(context, wait + kCallDeadline);
    bearing::v1::AcquireLeaseResponse response;
    const absl::Status status = FromGrpc(stub_->AcquireLease(&context, request, &response));
    if (!status.ok()) return status;
    if (!response.has_lease()) return std::unique_ptr<LeasedJob>();
    return std::unique_ptr<LeasedJob>(std::make_unique<LeasedJobImpl>(stub_.get(), group_.id(), response.lease()));
  }

 private:
  const bearing::v1::WorkerGroup group_;
  std::unique_ptr<WorkerService::Stub> stub_;
};

}  // namespace

std::unique_ptr<CoordinatorLink> CoordinatorLink::Connect(const std::string& address, const bearing::v1::WorkerGroup& group) {
  return std::make_unique<CoordinatorLinkImpl>(address, group);
}

}  // namespace bearing::worker
