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

namespace bearing::cli {

// The codes of gRPC and absl are the same numbers. UNAVAILABLE names the server.
absl::Status FromGrpc(const grpc::Status& status, const std::string& server);

// A random UUID, version 4.
std::string NewRequestId();

class JobsClient {
 public:
  explicit JobsClient(std::string server);

  absl::StatusOr<bearing::v1::Job> Create(const bearing::v1::CreateJobRequest& request);
  absl::StatusOr<bearing::v1::Job> Get(const std::string& name);
  // All pages, newest first.
  absl::StatusOr<std::vector<bearing::v1::Job>> List(bearing::v1::JobState state);
  absl::StatusOr<bearing::v1::Job> Cancel(const std::string& name);
  absl::StatusOr<std::string> Version();

  const std::string& server() const { return server_; }
  bearing::v1::JobsService::Stub& stub() { return *stub_; }

 private:
  std::string server_;
  std::unique_ptr<bearing::v1::JobsService::Stub> stub_;
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOBS_CLIENT_H_
