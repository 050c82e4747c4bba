// absl::Status to grpc::Status: the codes are the same numbers.
#ifndef BEARING_COORDINATOR_GRPC_STATUS_H_
#define BEARING_COORDINATOR_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace bearing::coordinator {

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_GRPC_STATUS_H_
