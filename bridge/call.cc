#include "bridge/call.h"

namespace bearing::bridge {
namespace {

absl::StatusCode StatusCodeOf(int32_t code) {
  switch (code) {
    case BEARING_INVALID_ARGUMENT:
      return absl::StatusCode::kInvalidArgument;
    case BEARING_NOT_FOUND:
      return absl::StatusCode::kNotFound;
    case BEARING_FAILED_PRECONDITION:
      return absl::StatusCode::kFailedPrecondition;
    case BEARING_RESOURCE_EXHAUSTED:
      return absl::StatusCode::kResourceExhausted;
    case BEARING_ALREADY_EXISTS:
      return absl::StatusCode::kAlreadyExists;
    case BEARING_PERMISSION_DENIED:
      return absl::StatusCode::kPermissionDenied;
    case BEARING_UNAUTHENTICATED:
      return absl::StatusCode::kUnauthenticated;
    case BEARING_UNAVAILABLE:
      return absl::StatusCode::kUnavailable;
    case BEARING_DATA_LOSS:
      return absl::StatusCode::kDataLoss;
    case BEARING_UNIMPLEMENTED:
      return absl::StatusCode::kUnimplemented;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

std::string Take(bearing_owned_text text) {
  std::string copy = text.size == 0 ? std::string() : std::string(text.data, text.size);
  bearing_text_free(text);
  return copy;
}

absl::Status ToStatus(int32_t code, bearing_owned_text error) {
  if (code == BEARING_OK) return absl::OkStatus();
  return absl::Status(StatusCodeOf(code), Take(error));
}

}  // namespace bearing::bridge
