// The jobs API with plain calls: one deadline for every unary call, gRPC's codes as absl::Status. Thread-safe.
#ifndef BEARING_CLI_JOBS_CLIENT_H_
#define BEARING_CLI_JOBS_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/jobs_service.grpc.pb.h"
#include "rpc/client_connection.h"

namespace bearing::cli {

// The codes of gRPC and absl are the same numbers. UNAVAILABLE names the server.
absl::Status FromGrpc(const grpc::Status& status, const std::string& server);

// A random UUID, version 4.
std::string NewRequestId();

class JobsClient {
 public:
  // Files of `security` that cannot be used are the error of every call.
  explicit JobsClient(std::string server, const rpc::ClientSecurity& security = {});

  absl::StatusOr<bearing::v1::Job> Create(const bearing::v1::CreateJobRequest& request);
  absl::StatusOr<bearing::v1::Job> Get(const std::string& name);
  // All pages, newest first.
  absl::StatusOr<std::vector<bearing::v1::Job>> List(bearing::v1::ListJobsRequest request);
  absl::StatusOr<bearing::v1::Job> Cancel(const std::string& name);
  absl::Status Delete(const std::string& name);
  // All pages in one answer.
  absl::StatusOr<bearing::v1::ListArtifactsResponse> Artifacts(const std::string& name);
  absl::StatusOr<std::string> Version();

  // Opens a stream; its end is FromGrpc of Finish().
  absl::StatusOr<std::unique_ptr<grpc::ClientReader<bearing::v1::WatchJobResponse>>> Watch(
      grpc::ClientContext* context, const bearing::v1::WatchJobRequest& request);
  absl::StatusOr<std::unique_ptr<grpc::ClientReader<bearing::v1::StreamJobLogsResponse>>> Logs(
      grpc::ClientContext* context, const bearing::v1::StreamJobLogsRequest& request);

  const std::string& server() const { return server_; }

 private:
  // One unary call.
  template <typename Method, typename Request, typename Response>
  absl::Status Call(const Method& method, const Request& request, Response* response);

  std::string server_;
  absl::StatusOr<std::unique_ptr<rpc::ClientConnection>> connection_;
  std::unique_ptr<bearing::v1::JobsService::Stub> stub_;  // With a connection alone.
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOBS_CLIENT_H_
