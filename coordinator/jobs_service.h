// The public API (bearing.v1.JobsService): unary calls on gRPC's own threads, because checks read files; WatchJob on callbacks,
// because thousands may be open. Thread-safe; the parts must outlive the server.
#ifndef BEARING_COORDINATOR_JOBS_SERVICE_H_
#define BEARING_COORDINATOR_JOBS_SERVICE_H_

#include <chrono>
#include <string>

#include "bearing/v1/jobs_service.grpc.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_checker.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/scheduler.h"

namespace bearing::coordinator {

struct JobsServiceOptions {
  std::string version;
  // WatchJob says that it lives after this long without a change.
  std::chrono::milliseconds watch_keepalive{15000};
  // No check of a job goes on longer than this, whatever deadline the client asks for.
  std::chrono::milliseconds longest_check{30000};
};

class JobsService final : public bearing::v1::JobsService::WithCallbackMethod_WatchJob<bearing::v1::JobsService::Service> {
 public:
  JobsService(JobsServiceOptions options, Scheduler* scheduler, JobStore* store, JobFeed* feed, const JobChecker* checker,
              const Clock* clock);

  grpc::Status CreateJob(grpc::ServerContext* context, const bearing::v1::CreateJobRequest* request,
                         bearing::v1::CreateJobResponse* response) override;
  grpc::Status GetJob(grpc::ServerContext* context, const bearing::v1::GetJobRequest* request,
                      bearing::v1::GetJobResponse* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context, const bearing::v1::ListJobsRequest* request,
                        bearing::v1::ListJobsResponse* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context, const bearing::v1::CancelJobRequest* request,
                         bearing::v1::CancelJobResponse* response) override;
  grpc::Status GetVersion(grpc::ServerContext* context, const bearing::v1::GetVersionRequest* request,
                          bearing::v1::GetVersionResponse* response) override;
  grpc::ServerWriteReactor<bearing::v1::WatchJobResponse>* WatchJob(grpc::CallbackServerContext* context,
                                                                    const bearing::v1::WatchJobRequest* request) override;

 private:
  absl::Status Create(grpc::ServerContext* context, const bearing::v1::CreateJobRequest& request, bearing::v1::Job* job);
  absl::Status List(const bearing::v1::ListJobsRequest& request, bearing::v1::ListJobsResponse* response);

  const JobsServiceOptions options_;
  Scheduler* const scheduler_;
  JobStore* const store_;
  JobFeed* const feed_;
  const JobChecker* const checker_;
  const Clock* const clock_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOBS_SERVICE_H_
