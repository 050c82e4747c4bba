#include "coordinator/jobs_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "coordinator/artifact_list.h"
#include "coordinator/log_reactor.h"
#include "coordinator/page_token.h"
#include "coordinator/watch_reactor.h"
#include "jobs/artifacts.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::Job;

constexpr int kDefaultPageSize = 100;
constexpr int kLargestPageSize = 1000;
// Clients receive 4 MiB by default; a page ends before that.
constexpr size_t kPageBytes = 3 << 20;
constexpr size_t kLongestJobId = 63;
constexpr int kMostLabels = 8;

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

// Of a name that a client chooses, as the names of specs.
absl::Status CheckJobId(const std::string& id) {
  const auto edge = [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); };
  const bool valid = id.size() <= kLongestJobId && edge(id.front()) && edge(id.back()) &&
                     std::all_of(id.begin(), id.end(), [&](char c) { return edge(c) || c == '-'; });
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("job_id: must have 1 to ", kLongestJobId, " lower-case letters, digits and inner dashes"));
}

// What makes a request another one: with the spec, the name it asks for.
std::string BodyOf(const bearing::v1::CreateJobRequest& request) {
  std::string bytes = CanonicalBytes(request.spec());
  if (!request.job_id().empty()) absl::StrAppend(&bytes, "job_id=", request.job_id());
  return bytes;
}

// A stream that ends with an error at once.
template <typename Response>
class Refused final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit Refused(const absl::Status& status) { this->Finish(rpc::ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

absl::Status JobsService::Create(grpc::ServerContext* context, const bearing::v1::CreateJobRequest& request,
                                 const Caller& caller, Job* job) {
  BEARING_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  if (!request.job_id().empty()) BEARING_RETURN_IF_ERROR(CheckJobId(request.job_id()));
  Submission submission{.job_id = request.job_id(), .owner = caller.name};
  if (!request.validate_only()) submission.request = {request.request_id(), jobs::Sha256OfBytes(BodyOf(request))};
  // Before the checks: a repeated request finds its job even if the job has filled the output folder meanwhile.
  BEARING_ASSIGN_OR_RETURN(std::optional<StoredJob> before, parts_.scheduler->FindRequest(submission.request));
  if (before.has_value()) {
    if (before->job.owner() != caller.name) {
      return rpc::WithReason(absl::AlreadyExistsError("request_id: was used by another caller"), "REQUEST_ID_REUSED");
    }
    *job = std::move(before->job);
    return absl::OkStatus();
  }
  // Before any file is opened.
  BEARING_RETURN_IF_ERROR(options_.paths.Check(request.spec()));
  const SteadyTime end = parts_.clock->SteadyNow() + options_.longest_check;
  auto proceed = [&]() -> absl::Status {
    if (context->IsCancelled()) return absl::CancelledError("the client gave up");
    if (parts_.clock->SteadyNow() >= end) return absl::DeadlineExceededError("checking the job took too long");
    return absl::OkStatus();
  };
  bearing::v1::JobSpec spec = request.spec();
  BEARING_RETURN_IF_ERROR(parts_.checker->Check(&spec, proceed));
  if (request.validate_only()) {
    *job->mutable_spec() = std::move(spec);
    return absl::OkStatus();
  }
  BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.scheduler->Submit(spec, submission));
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
  if (request.labels_size() > kMostLabels) {
    return absl::InvalidArgumentError(absl::StrCat("labels: at most ", kMostLabels, ", found ", request.labels_size()));
  }
  const JobFilter filter{request.state(), {request.labels().begin(), request.labels().end()}};
  BEARING_ASSIGN_OR_RETURN(const int64_t before_id, ParsePageToken(request.page_token(), filter));
  const int wanted = request.page_size() == 0 ? kDefaultPageSize : std::min(request.page_size(), kLargestPageSize);
  // One more than wanted tells whether a next page exists.
  BEARING_ASSIGN_OR_RETURN(std::vector<StoredJob> rows, parts_.store->List(filter, before_id, wanted + 1));
  size_t bytes = 0;
  int64_t last_id = 0;
  for (StoredJob& row : rows) {
    bytes += row.job.ByteSizeLong();
    if (response->jobs_size() == wanted || (response->jobs_size() > 0 && bytes > kPageBytes)) {
      response->set_next_page_token(MakePageToken(filter, last_id));
      break;
    }
    last_id = row.id;
    *response->add_jobs() = std::move(row.job);
  }
  return absl::OkStatus();
}

absl::Status JobsService::CheckOwner(const std::string& job_name, const Caller& caller) {
  BEARING_ASSIGN_OR_RETURN(const StoredJob stored, parts_.store->Get(job_name));
  if (caller.Owns(stored.job.owner())) return absl::OkStatus();
  return rpc::WithReason(
      absl::PermissionDeniedError(absl::StrCat("the job is another's; the scope admin is needed: name=", job_name)),
      "NOT_OWNER");
}

grpc::Status JobsService::CreateJob(grpc::ServerContext* context, const bearing::v1::CreateJobRequest* request,
                                    bearing::v1::CreateJobResponse* response) {
  CallInfo call{.method = "CreateJob", .scope = rpc::kScopeSubmit, .request_id = request->request_id(), .audited = true};
  return parts_.guard->Run(*context, call, [&](const Caller& caller, CallInfo& noted) {
    absl::Status status = Create(context, *request, caller, response->mutable_job());
    noted.job = status.ok() ? response->job().name() : request->job_id();
    return status;
  });
}

grpc::Status JobsService::GetJob(grpc::ServerContext* context, const bearing::v1::GetJobRequest* request,
                                 bearing::v1::GetJobResponse* response) {
  return parts_.guard->Run(*context, {.method = "GetJob", .job = request->name()}, [&](const Caller&, CallInfo&) {
    absl::StatusOr<StoredJob> stored = parts_.store->Get(request->name());
    if (stored.ok()) *response->mutable_job() = std::move(stored->job);
    return stored.status();
  });
}

grpc::Status JobsService::ListJobs(grpc::ServerContext* context, const bearing::v1::ListJobsRequest* request,
                                   bearing::v1::ListJobsResponse* response) {
  return parts_.guard->Run(*context, {.method = "ListJobs"},
                           [&](const Caller&, CallInfo&) { return List(*request, response); });
}

grpc::Status JobsService::CancelJob(grpc::ServerContext* context, const bearing::v1::CancelJobRequest* request,
                                    bearing::v1::CancelJobResponse* response) {
  const CallInfo call{.method = "CancelJob", .scope = rpc::kScopeSubmit, .job = request->name(), .audited = true};
  return parts_.guard->Run(*context, call, [&](const Caller& caller, CallInfo&) -> absl::Status {
    BEARING_RETURN_IF_ERROR(CheckOwner(request->name(), caller));
    BEARING_ASSIGN_OR_RETURN(StoredJob stored, parts_.scheduler->Cancel(request->name()));
    *response->mutable_job() = std::move(stored.job);
    return absl::OkStatus();
  });
}

grpc::Status JobsService::DeleteJob(grpc::ServerContext* context, const bearing::v1::DeleteJobRequest* request,
                                    bearing::v1::DeleteJobResponse* response) {
  const CallInfo call{.method = "DeleteJob", .scope = rpc::kScopeSubmit, .job = request->name(), .audited = true};
  return parts_.guard->Run(*context, call, [&](const Caller& caller, CallInfo&) -> absl::Status {
    BEARING_RETURN_IF_ERROR(CheckOwner(request->name(), caller));
    return parts_.scheduler->Delete(request->name());
  });
}

grpc::Status JobsService::ListArtifacts(grpc::ServerContext* context, const bearing::v1::ListArtifactsRequest* request,
                                        bearing::v1::ListArtifactsResponse* response) {
  return parts_.guard->Run(*context, {.method = "ListArtifacts", .job = request->name()},
                           [&](const Caller&, CallInfo&) -> absl::Status {
                             BEARING_ASSIGN_OR_RETURN(const StoredJob stored, parts_.store->Get(request->name()));
                             return coordinator::ListArtifacts(stored.job, *request, response);
                           });
}

grpc::Status JobsService::GetVersion(grpc::ServerContext* context, const bearing::v1::GetVersionRequest* request,
                                     bearing::v1::GetVersionResponse* response) {
  return parts_.guard->Run(*context, {.method = "GetVersion"}, [&](const Caller&, CallInfo&) {
    response->set_version(options_.version);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<bearing::v1::WatchJobResponse>* JobsService::WatchJob(grpc::CallbackServerContext* context,
                                                                               const bearing::v1::WatchJobRequest* request) {
  const auto caller = parts_.guard->Admit(*context, {.method = "WatchJob", .job = request->name()});
  if (!caller.ok()) return new Refused<bearing::v1::WatchJobResponse>(caller.status());
  return WatchReactor::Start(*request, parts_.store, parts_.feed, parts_.clock, options_.watch_keepalive);
}

grpc::ServerWriteReactor<bearing::v1::StreamJobLogsResponse>* JobsService::StreamJobLogs(
    grpc::CallbackServerContext* context, const bearing::v1::StreamJobLogsRequest* request) {
  const auto caller = parts_.guard->Admit(*context, {.method = "StreamJobLogs", .job = request->name()});
  if (!caller.ok()) return new Refused<bearing::v1::StreamJobLogsResponse>(caller.status());
  return LogReactor::Start(*request, parts_.store, parts_.feed);
}

}  // namespace bearing::coordinator
