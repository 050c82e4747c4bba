// The public API (bearing.v1.JobsService): unary calls on gRPC's own threads, because checks read files; WatchJob on callbacks,
// because thousands may be open. Thread-safe; the parts must outlive the server.
#ifndef BEARING_COORDINATOR_JOBS_SERVICE_H_
#define BEARING_COORDINATOR_JOBS_SERVICE_H_

#include <chrono>
#include <string>
#include <utility>

#include "bearing/v1/jobs_service.grpc.pb.h"
#include "coordinator/call_guard.h"
#include "coordinator/clock.h"
#include "coordinator/job_checker.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/path_policy.h"
#include "coordinator/scheduler.h"

namespace bearing::coordinator {

struct JobsServiceOptions {
  std::string version;
  // WatchJob says that it lives after this long without a change.
  std::chrono::milliseconds watch_keepalive{15000};
  // No check of a job goes on longer than this, whatever deadline the client asks for.
  std::chrono::milliseconds longest_check{30000};
  PathPolicy paths;
};

struct JobsServiceParts {
  Scheduler* scheduler;
  JobStore* store;
  JobFeed* feed;
  const JobChecker* checker;
  const Clock* clock;
  CallGuard* guard;
};

class JobsService final : public bearing::v1::JobsService::WithCallbackMethod_WatchJob<
                              bearing::v1::JobsService::WithCallbackMethod_StreamJobLogs<bearing::v1::JobsService::Service>> {
 public:
  JobsService(JobsServiceOptions options, const JobsServiceParts& parts) : options_(std::move(options)), parts_(parts) {}

  grpc::Status CreateJob(grpc::ServerContext* context, const bearing::v1::CreateJobRequest* request,
                         bearing::v1::CreateJobResponse* response) override;
  grpc::Status GetJob(grpc::ServerContext* context, const bearing::v1::GetJobRequest* request,
                      bearing::v1::GetJobResponse* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context, const bearing::v1::ListJobsRequest* request,
                        bearing::v1::ListJobsResponse* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context, const bearing::v1::CancelJobRequest* request,
                         bearing::v1::CancelJobResponse* response) override;
  grpc::Status DeleteJob(grpc::ServerContext* context, const bearing::v1::DeleteJobRequest* request,
                         bearing::v1::DeleteJobResponse* response) override;
  grpc::Status ListArtifacts(grpc::ServerContext* context, const bearing::v1::ListArtifactsRequest* request,
                             bearing::v1::ListArtifactsResponse* response) override;
  grpc::Status GetVersion(grpc::ServerContext* context, const bearing::v1::GetVersionRequest* request,
                          bearing::v1::GetVersionResponse* response) override;
  grpc::ServerWriteReactor<bearing::v1::WatchJobResponse>* WatchJob(grpc::CallbackServerContext* context,
                                                                    const bearing::v1::WatchJobRequest* request) override;

  grpc::ServerWriteReactor<bearing::v1::StreamJobLogsResponse>* StreamJobLogs(
      grpc::CallbackServerContext* context, const bearing::v1::StreamJobLogsRequest* request) override;

 private:
  absl::Status Create(grpc::ServerContext* context, const bearing::v1::CreateJobRequest& request, const Caller& caller,
                      bearing::v1::Job* job);
  absl::Status List(const bearing::v1::ListJobsRequest& request, bearing::v1::ListJobsResponse* response);
  // PermissionDenied for the job of another.
  absl::Status CheckOwner(const std::string& job_name, const Caller& caller);

  const JobsServiceOptions options_;
  const JobsServiceParts parts_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOBS_SERVICE_H_
