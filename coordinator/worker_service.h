// The internal API of worker groups (bearing.v1.WorkerService). A waiting AcquireLease holds one thread: there are as many as
// idle groups. Thread-safe; scheduler and clock must outlive the server.
#ifndef BEARING_COORDINATOR_WORKER_SERVICE_H_
#define BEARING_COORDINATOR_WORKER_SERVICE_H_

#include <atomic>

#include "bearing/v1/worker_service.grpc.pb.h"
#include "coordinator/call_guard.h"
#include "coordinator/clock.h"
#include "coordinator/scheduler.h"

namespace bearing::coordinator {

class WorkerService final : public bearing::v1::WorkerService::Service {
 public:
  WorkerService(Scheduler* scheduler, const Clock* clock, CallGuard* guard, int max_waiting)
      : scheduler_(scheduler), clock_(clock), guard_(guard), max_waiting_(max_waiting) {}

  grpc::Status AcquireLease(grpc::ServerContext* context, const bearing::v1::AcquireLeaseRequest* request,
                            bearing::v1::AcquireLeaseResponse* response) override;
  grpc::Status Heartbeat(grpc::ServerContext* context, const bearing::v1::HeartbeatRequest* request,
                         bearing::v1::HeartbeatResponse* response) override;
  grpc::Status ReportProgress(grpc::ServerContext* context, const bearing::v1::ReportProgressRequest* request,
                              bearing::v1::ReportProgressResponse* response) override;
  grpc::Status ReportExit(grpc::ServerContext* context, const bearing::v1::ReportExitRequest* request,
                          bearing::v1::ReportExitResponse* response) override;
  grpc::Status Complete(grpc::ServerContext* context, const bearing::v1::CompleteRequest* request,
                        bearing::v1::CompleteResponse* response) override;

 private:
  absl::Status Acquire(grpc::ServerContext* context, const bearing::v1::AcquireLeaseRequest& request,
                       bearing::v1::AcquireLeaseResponse* response);

  Scheduler* const scheduler_;
  const Clock* const clock_;
  CallGuard* const guard_;
  const int max_waiting_;
  std::atomic<int> waiting_{0};
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_WORKER_SERVICE_H_
