#include "rpc/status_details.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "google/rpc/status.pb.h"
#include "sharding/concat.h"

namespace bearing::rpc {
namespace {

constexpr char kReasonPayload[] = "bearing/reason";
// Clients take 8 KiB of metadata in all, in which the details are base64.
constexpr size_t kLongestMessage = 3000;
constexpr size_t kLongestInDetails = 200;
constexpr int kMostFields = 10;

std::optional<std::string> PayloadOf(const absl::Status& status, std::string_view url) {
  const auto payload = status.GetPayload(AsAbsl(url));
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

// "select.kl_max: must be positive" names the field select.kl_max.
std::string FieldInFront(std::string_view message) {
  const size_t colon = message.find(": ");
  if (colon == std::string_view::npos || colon == 0) return "";
  const std::string_view field = message.substr(0, colon);
  const auto is_part = [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '.' || c == '[' || c == ']';
  };
  return std::all_of(field.begin(), field.end(), is_part) ? std::string(field) : "";
}

std::string Shortened(std::string_view text, size_t longest) {
  return text.size() <= longest ? std::string(text) : Concat(text.substr(0, longest), "...");
}

}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason) {
  if (!status.ok()) status.SetPayload(kReasonPayload, absl::Cord(AsAbsl(reason)));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  if (status.ok()) return "";
  if (std::optional<std::string> reason = PayloadOf(status, kReasonPayload)) return *std::move(reason);
  return absl::StatusCodeToString(status.code());
}

google::rpc::BadRequest FieldsOf(const absl::Status& status) {
  google::rpc::BadRequest fields;
  if (!absl::IsInvalidArgument(status)) return fields;
  if (const std::optional<std::string> bytes = PayloadOf(status, kBadRequestPayload)) {
    if (fields.ParseFromString(*bytes)) return fields;
    fields.Clear();
  }
  const std::string_view message(status.message().data(), status.message().size());
  const std::string field = FieldInFront(message);
  if (!field.empty()) {
    fields.add_field_violations()->set_field(field);
    fields.mutable_field_violations(0)->set_description(std::string(message.substr(field.size() + 2)));
  }
  return fields;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = Shortened(std::string(status.message()), kLongestMessage);
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(Shortened(message, kLongestInDetails));
  google::rpc::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_domain(std::string(kErrorDomain));
  details.add_details()->PackFrom(info);
  google::rpc::BadRequest fields = FieldsOf(status);
  if (fields.field_violations_size() > 0) {
    if (fields.field_violations_size() > kMostFields) {
      fields.mutable_field_violations()->DeleteSubrange(kMostFields, fields.field_violations_size() - kMostFields);
    }
    for (auto& field : *fields.mutable_field_violations()) {
      field.set_description(Shortened(field.description(), kLongestInDetails));
    }
    details.add_details()->PackFrom(fields);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message, details.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) return result;
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest fields;
    if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info)) result = WithReason(std::move(result), info.reason());
    if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&fields)) {
      result.SetPayload(AsAbsl(kBadRequestPayload), absl::Cord(fields.SerializeAsString()));
    }
  }
  return result;
}

}  // namespace bearing::rpc
