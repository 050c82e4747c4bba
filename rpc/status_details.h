// absl::Status to grpc::Status and back, with google.rpc.Status in the trailer: one ErrorInfo, and BadRequest for wrong fields.
//
// The codes of both are the same numbers. Reason and fields travel as payloads of the absl::Status; without them the reason is
// the code's name, and a wrong field is taken from a message "field: text". Stateless.
#ifndef BEARING_RPC_STATUS_DETAILS_H_
#define BEARING_RPC_STATUS_DETAILS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/error_details.pb.h"

namespace bearing::rpc {

inline constexpr std::string_view kErrorDomain = "bearing";
// Payload that holds a serialized google.rpc.BadRequest.
inline constexpr std::string_view kBadRequestPayload = "type.googleapis.com/google.rpc.BadRequest";

// The same status with a reason for programs, UPPER_SNAKE. An Ok status stays as it is.
absl::Status WithReason(absl::Status status, std::string_view reason);

// The reason it carries, else the name of its code; empty for Ok.
std::string ReasonOf(const absl::Status& status);

// The fields it names; none unless the code is InvalidArgument.
google::rpc::BadRequest FieldsOf(const absl::Status& status);

grpc::Status ToGrpc(const absl::Status& status);

// Details that do not parse are left out.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace bearing::rpc

#endif  // BEARING_RPC_STATUS_DETAILS_H_
