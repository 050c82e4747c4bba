#include "cli/jobs_client.h"

#include <array>
#include <chrono>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bearing::cli {
namespace {

constexpr std::chrono::seconds kDeadline(30);
constexpr int kMaxMessageBytes = 16 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A proxy of the environment must not come between this machine and its own coordinator.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

void SetDeadline(grpc::ClientContext& context) { context.set_deadline(std::chrono::system_clock::now() + kDeadline); }

}  // namespace

absl::Status FromGrpc(const grpc::Status& status, const std::string& server) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    message = absl::StrCat("the server cannot be reached: server=", server, " error=", message);
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    message = absl::StrCat("the server did not answer in time: server=", server);
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
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

JobsClient::JobsClient(std::string server)
    : server_(std::move(server)), stub_(bearing::v1::JobsService::NewStub(MakeChannel(server_))) {}

absl::StatusOr<bearing::v1::Job> JobsClient::Create(const bearing::v1::CreateJobRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  bearing::v1::CreateJobResponse response;
  const grpc::Status status = stub_->CreateJob(&context, request, &response);
  if (!status.ok()) return FromGrpc(status, server_);
  return std::move(*response.mutable_job());
}

absl::StatusOr<bearing::v1::Job> JobsClient::Get(const std::string& name) {
  grpc::ClientContext context;
  SetDeadline(context);
  bearing::v1::GetJobRequest request;
  request.set_name(name);
  bearing::v1::GetJobResponse response;
  const grpc::Status status = stub_->GetJob(&context, request, &response);
  if (!status.ok()) return FromGrpc(status, server_);
  return std::move(*response.mutable_job());
}

absl::StatusOr<std::vector<bearing::v1::Job>> JobsClient::List(bearing::v1::JobState state) {
  std::vector<bearing::v1::Job> jobs;
  bearing::v1::ListJobsRequest request;
  request.set_state(state);
  while (true) {
    grpc::ClientContext context;
    SetDeadline(context);
    bearing::v1::ListJobsResponse response;
    const grpc::Status status = stub_->ListJobs(&context, request, &response);
    if (!status.ok()) return FromGrpc(status, server_);
    for (bearing::v1::Job& job : *response.mutable_jobs()) jobs.push_back(std::move(job));
    if (response.next_page_token().empty()) return jobs;
    request.set_page_token(response.next_page_token());
  }
}

absl::StatusOr<bearing::v1::Job> JobsClient::Cancel(const std::string& name) {
  grpc::ClientContext context;
  SetDeadline(context);
  bearing::v1::CancelJobRequest request;
  request.set_name(name);
  bearing::v1::CancelJobResponse response;
  const grpc::Status status = stub_->CancelJob(&context, request, &response);
  if (!status.ok()) return FromGrpc(status, server_);
  return std::move(*response.mutable_job());
}

absl::StatusOr<std::string> JobsClient::Version() {
  grpc::ClientContext context;
  SetDeadline(context);
  bearing::v1::GetVersionResponse response;
  const grpc::Status status = stub_->GetVersion(&context, bearing::v1::GetVersionRequest(), &response);
  if (!status.ok()) return FromGrpc(status, server_);
  return response.version();
}

}  // namespace bearing::cli
