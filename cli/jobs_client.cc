#include "cli/jobs_client.h"

#include <array>
#include <chrono>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

using bearing::v1::JobsService;

constexpr std::chrono::seconds kDeadline(30);

}  // namespace

absl::Status FromGrpc(const grpc::Status& status, const std::string& server) {
  const absl::Status plain = rpc::FromGrpc(status);
  std::string message(plain.message());
  if (absl::IsUnavailable(plain)) message = absl::StrCat("the server cannot be reached: server=", server, " error=", message);
  if (absl::IsDeadlineExceeded(plain)) message = absl::StrCat("the server did not answer in time: server=", server);
  absl::Status result(plain.code(), message);
  plain.ForEachPayload([&result](absl::string_view url, const absl::Cord& payload) { result.SetPayload(url, payload); });
  return result;
}

std::string NewRequestId() {
  std::random_device random;
  std::array<uint32_t, 4> words;
  for (uint32_t& word : words) word = random();
  words[1] = (words[1] & 0xFFFF0FFFu) | 0x00004000u;  // Version 4.
  words[2] = (words[2] & 0x3FFFFFFFu) | 0x80000000u;  // Variant 1.
  return absl::StrFormat("%08x-%04x-%04x-%04x-%04x%08x", words[0], words[1] >> 16, words[1] & 0xFFFF, words[2] >> 16,
                         words[2] & 0xFFFF, words[3]);
}

JobsClient::JobsClient(std::string server, const rpc::ClientSecurity& security)
    : server_(std::move(server)), connection_(rpc::ClientConnection::Open(server_, security)) {
  if (connection_.ok()) stub_ = JobsService::NewStub((*connection_)->channel());
}

template <typename Method, typename Request, typename Response>
absl::Status JobsClient::Call(const Method& method, const Request& request, Response* response) {
  BEARING_RETURN_IF_ERROR(connection_.status());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  BEARING_RETURN_IF_ERROR((*connection_)->Authorize(&context));
  return FromGrpc((stub_.get()->*method)(&context, request, response), server_);
}

absl::StatusOr<bearing::v1::Job> JobsClient::Create(const bearing::v1::CreateJobRequest& request) {
  bearing::v1::CreateJobResponse response;
  BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::CreateJob, request, &response));
  return std::move(*response.mutable_job());
}

absl::StatusOr<bearing::v1::Job> JobsClient::Get(const std::string& name) {
  bearing::v1::GetJobRequest request;
  request.set_name(name);
  bearing::v1::GetJobResponse response;
  BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::GetJob, request, &response));
  return std::move(*response.mutable_job());
}

absl::StatusOr<std::vector<bearing::v1::Job>> JobsClient::List(bearing::v1::ListJobsRequest request) {
  std::vector<bearing::v1::Job> jobs;
  while (true) {
    bearing::v1::ListJobsResponse response;
    BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::ListJobs, request, &response));
    for (bearing::v1::Job& job : *response.mutable_jobs()) jobs.push_back(std::move(job));
    if (response.next_page_token().empty()) return jobs;
    request.set_page_token(response.next_page_token());
  }
}

absl::StatusOr<bearing::v1::Job> JobsClient::Cancel(const std::string& name) {
  bearing::v1::CancelJobRequest request;
  request.set_name(name);
  bearing::v1::CancelJobResponse response;
  BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::CancelJob, request, &response));
  return std::move(*response.mutable_job());
}

absl::Status JobsClient::Delete(const std::string& name) {
  bearing::v1::DeleteJobRequest request;
  request.set_name(name);
  bearing::v1::DeleteJobResponse response;
  return Call(&JobsService::Stub::DeleteJob, request, &response);
}

absl::StatusOr<bearing::v1::ListArtifactsResponse> JobsClient::Artifacts(const std::string& name) {
  bearing::v1::ListArtifactsRequest request;
  request.set_name(name);
  bearing::v1::ListArtifactsResponse all;
  while (true) {
    bearing::v1::ListArtifactsResponse page;
    BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::ListArtifacts, request, &page));
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
    if (request.page_token().empty()) return all;
  }
}

absl::StatusOr<std::string> JobsClient::Version() {
  bearing::v1::GetVersionResponse response;
  BEARING_RETURN_IF_ERROR(Call(&JobsService::Stub::GetVersion, bearing::v1::GetVersionRequest(), &response));
  return response.version();
}

absl::StatusOr<std::unique_ptr<grpc::ClientReader<bearing::v1::WatchJobResponse>>> JobsClient::Watch(
    grpc::ClientContext* context, const bearing::v1::WatchJobRequest& request) {
  BEARING_RETURN_IF_ERROR(connection_.status());
  BEARING_RETURN_IF_ERROR((*connection_)->Authorize(context));
  return stub_->WatchJob(context, request);
}

absl::StatusOr<std::unique_ptr<grpc::ClientReader<bearing::v1::StreamJobLogsResponse>>> JobsClient::Logs(
    grpc::ClientContext* context, const bearing::v1::StreamJobLogsRequest& request) {
  BEARING_RETURN_IF_ERROR(connection_.status());
  BEARING_RETURN_IF_ERROR((*connection_)->Authorize(context));
  return stub_->StreamJobLogs(context, request);
}

}  // namespace bearing::cli
