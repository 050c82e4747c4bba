#include "coordinator/jobs_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "coordinator/grpc_status.h"
#include "coordinator/page_token.h"
#include "coordinator/watch_reactor.h"
#include "jobs/artifacts.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::Job;

constexpr int kDefaultPageSize = 100;
constexpr int kLargestPageSize = 1000;
// Clients receive 4 MiB by default; a page ends before that.
constexpr size_t kPageBytes = 3 << 20;

// The same body gives the same bytes: map entries are sorted.
std::string CanonicalBytes(const bearing::v1::JobSpec& spec) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  return bytes;
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.empty()) return absl::OkStatus();
  bool valid = id.size() == 36;
  for (size_t i = 0; valid && i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    valid = dash ? id[i] == '-' : absl::ascii_isxdigit(id[i]);
  }
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError("request_id: must be a UUID such as 0b6e4f7c-93c5-4a53-9f5c-2f1d0a3c7e11");
}

}  // namespace

JobsService::JobsService(JobsServiceOptions options, Scheduler* scheduler, JobStore* store, JobFeed* feed,
                         const JobChecker* checker, const Clock* clock)
    : options_(std::move(options)), scheduler_(scheduler), store_(store), feed_(feed), checker_(checker), clock_(clock) {}

absl::Status JobsService::Create(grpc::ServerContext* context, const bearing::v1::CreateJobRequest& request, Job* job) {
  BEARING_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  RequestKey key;
  if (!request.validate_only()) key = {request.request_id(), jobs::Sha256OfBytes(CanonicalBytes(request.spec()))};
  // Before the checks: a repeated request finds its job even if the job has filled the output folder meanwhile.
  BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> before, scheduler_->FindRequest(key));
  if (before.has_value()) {
    *job = std::move(before->job);
    return absl::OkStatus();
  }
  const SteadyTime end = clock_->SteadyNow() + options_.longest_check;
  auto proceed = [&]() -> absl::Status {
    if (context->IsCancelled()) return absl::CancelledError("the client gave up");
    if (clock_->SteadyNow() >= end) return absl::DeadlineExceededError("checking the job took too long");
    return absl::OkStatus();
  };
  bearing::v1::JobSpec spec = request.spec();
  BEARING_RETURN_IF_ERROR(checker_->Check(&spec, proceed));
  if (request.validate_only()) {
    *job->mutable_spec() = std::move(spec);
    return absl::OkStatus();
  }
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, scheduler_->Submit(spec, key));
  *job = std::move(stored.job);
  return absl::OkStatus();
}

absl::Status JobsService::List(const bearing::v1::ListJobsRequest& request, bearing::v1::ListJobsResponse* response) {
  if (request.page_size() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("page_size: must not be negative: page_size=", request.page_size()));
  }
  if (!bearing::v1::JobState_IsValid(request.state())) {
    return absl::InvalidArgumentError(absl::StrCat("state: unknown: state=", static_cast<int>(request.state())));
  }
  BEARING_ASSIGN_OR_RETURN(const int64_t before_id, ParsePageToken(request.page_token(), request.state()));
  const int wanted = request.page_size() == 0 ? kDefaultPageSize : std::min(request.page_size(), kLargestPageSize);
  // One more than wanted tells whether a next page exists.
  BEARING_ASSIGN_OR_RETURN(std::vector<StoredJob> rows, store_->List(request.state(), before_id, wanted + 1));
  size_t bytes = 0;
  int64_t last_id = 0;
  for (StoredJob& row : rows) {
    bytes += row.job.ByteSizeLong();
    if (response->jobs_size() == wanted || (response->jobs_size() > 0 && bytes > kPageBytes)) {
      response->set_next_page_token(MakePageToken(request.state(), last_id));
      break;
    }
    last_id = row.id;
    *response->add_jobs() = std::move(row.job);
  }
  return absl::OkStatus();
}

grpc::Status JobsService::CreateJob(grpc::ServerContext* context, const bearing::v1::CreateJobRequest* request,
                                    bearing::v1::CreateJobResponse* response) {
  return ToGrpc(Create(context, *request, response->mutable_job()));
}

grpc::Status JobsService::GetJob(grpc::ServerContext* context, const bearing::v1::GetJobRequest* request,
                                 bearing::v1::GetJobResponse* response) {
  absl::StatusOr<StoredJob> stored = store_->Get(request->name());
  if (stored.ok()) *response->mutable_job() = std::move(stored->job);
  return ToGrpc(stored.status());
}

grpc::Status JobsService::ListJobs(grpc::ServerContext* context, const bearing::v1::ListJobsRequest* request,
                                   bearing::v1::ListJobsResponse* response) {
  return ToGrpc(List(*request, response));
}

grpc::Status JobsService::CancelJob(grpc::ServerContext* context, const bearing::v1::CancelJobRequest* request,
                                    bearing::v1::CancelJobResponse* response) {
  absl::StatusOr<StoredJob> stored = scheduler_->Cancel(request->name());
  if (stored.ok()) *response->mutable_job() = std::move(stored->job);
  return ToGrpc(stored.status());
}

grpc::Status JobsService::GetVersion(grpc::ServerContext* context, const bearing::v1::GetVersionRequest* request,
                                     bearing::v1::GetVersionResponse* response) {
  response->set_version(options_.version);
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<bearing::v1::WatchJobResponse>* JobsService::WatchJob(grpc::CallbackServerContext* context,
                                                                               const bearing::v1::WatchJobRequest* request) {
  return WatchReactor::Start(*request, store_, feed_, clock_, options_.watch_keepalive);
}

}  // namespace bearing::coordinator
