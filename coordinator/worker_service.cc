#include "coordinator/worker_service.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using std::chrono::milliseconds;

constexpr int kLongestWaitSeconds = 60;
constexpr size_t kLongestGroupId = 256;
// How soon a poll notices that its client has gone.
constexpr milliseconds kLookAround{200};

absl::Status CheckGroup(const bearing::v1::WorkerGroup& group) {
  if (group.id().empty() || group.id().size() > kLongestGroupId) {
    return absl::InvalidArgumentError(absl::StrCat("group.id: must have 1 to ", kLongestGroupId, " bytes"));
  }
  if (group.ranks() < 1)
    return absl::InvalidArgumentError(absl::StrCat("group.ranks: must be at least 1: ranks=", group.ranks()));
  if (group.memory_bytes_per_rank() < 0) return absl::InvalidArgumentError("group.memory_bytes_per_rank: must not be negative");
  return absl::OkStatus();
}

}  // namespace

absl::Status WorkerService::Acquire(grpc::ServerContext* context, const bearing::v1::AcquireLeaseRequest& request,
                                    bearing::v1::AcquireLeaseResponse* response) {
  BEARING_RETURN_IF_ERROR(CheckGroup(request.group()));
  if (request.wait_seconds() < 0) return absl::InvalidArgumentError("wait_seconds: must not be negative");
  const int waiting = ++waiting_;
  absl::Cleanup leave = [this] { --waiting_; };
  if (waiting > max_waiting_) {
    return absl::ResourceExhaustedError(absl::StrCat("too many worker groups are waiting: limit=", max_waiting_));
  }
  const SteadyTime end = clock_->SteadyNow() + std::chrono::seconds(std::min(request.wait_seconds(), kLongestWaitSeconds));
  while (true) {
    // The mark is read before the queue, so that a job queued in between is not slept through.
    const uint64_t mark = scheduler_->WorkMark();
    if (scheduler_->closed())
      return rpc::WithReason(absl::UnavailableError("the coordinator is shutting down"), "SHUTTING_DOWN");
    // A lease for a client that has gone would only run out.
    if (context->IsCancelled()) return absl::CancelledError("the client gave up");
    BEARING_ASSIGN_OR_RETURN(std::optional<bearing::v1::Lease> lease, scheduler_->Acquire(request.group()));
    if (lease.has_value()) {
      *response->mutable_lease() = *std::move(lease);
      return absl::OkStatus();
    }
    const auto left = std::chrono::ceil<milliseconds>(end - clock_->SteadyNow());
    if (left <= milliseconds::zero()) return absl::OkStatus();
    scheduler_->WaitForWork(mark, std::min(left, kLookAround));
  }
}

grpc::Status WorkerService::AcquireLease(grpc::ServerContext* context, const bearing::v1::AcquireLeaseRequest* request,
                                         bearing::v1::AcquireLeaseResponse* response) {
  return guard_->Run(*context, {.method = "AcquireLease", .scope = rpc::kScopeWorker},
                     [&](const Caller&, CallInfo&) { return Acquire(context, *request, response); });
}

grpc::Status WorkerService::Heartbeat(grpc::ServerContext* context, const bearing::v1::HeartbeatRequest* request,
                                      bearing::v1::HeartbeatResponse* response) {
  const CallInfo call{.method = "Heartbeat", .scope = rpc::kScopeWorker, .job = request->job_name()};
  return guard_->Run(*context, call, [&](const Caller&, CallInfo&) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const bool cancel, scheduler_->Heartbeat(*request));
    response->set_cancel(cancel);
    return absl::OkStatus();
  });
}

grpc::Status WorkerService::ReportProgress(grpc::ServerContext* context, const bearing::v1::ReportProgressRequest* request,
                                           bearing::v1::ReportProgressResponse* response) {
  const CallInfo call{.method = "ReportProgress", .scope = rpc::kScopeWorker, .job = request->job_name()};
  return guard_->Run(*context, call, [&](const Caller&, CallInfo&) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const bool cancel, scheduler_->ReportProgress(*request));
    response->set_cancel(cancel);
    return absl::OkStatus();
  });
}

grpc::Status WorkerService::Complete(grpc::ServerContext* context, const bearing::v1::CompleteRequest* request,
                                     bearing::v1::CompleteResponse* response) {
  const CallInfo call{.method = "Complete", .scope = rpc::kScopeWorker, .job = request->job_name(), .audited = true};
  return guard_->Run(*context, call, [&](const Caller&, CallInfo&) { return scheduler_->Complete(*request); });
}

grpc::Status WorkerService::ReportExit(grpc::ServerContext* context, const bearing::v1::ReportExitRequest* request,
                                       bearing::v1::ReportExitResponse* response) {
  const CallInfo call{.method = "ReportExit", .scope = rpc::kScopeWorker, .audited = true};
  return guard_->Run(*context, call, [&](const Caller&, CallInfo&) { return scheduler_->ReportExit(*request); });
}

}  // namespace bearing::coordinator
