#include "coordinator/call_guard.h"

#include <grpcpp/impl/codegen/server_context.h>

#include <chrono>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace bearing::coordinator {
namespace {

std::string AuthorizationOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto [first, last] = metadata.equal_range("authorization");
  // Two of them could mean two things to two readers.
  if (first == last || std::next(first) != last) return "";
  return std::string(first->second.data(), first->second.size());
}

}  // namespace

absl::StatusOr<Caller> CallGuard::Admit(const grpc::ServerContextBase& context, const CallInfo& call) {
  const SteadyTime start = clock_->SteadyNow();
  absl::StatusOr<Caller> caller = authenticator_->Authenticate(AuthorizationOf(context));
  absl::Status status = caller.status();
  if (status.ok() && !caller->Has(call.scope)) {
    status = rpc::WithReason(absl::PermissionDeniedError(absl::StrCat("the token lacks the scope ", rpc::ScopeName(call.scope),
                                                                      ": token=", caller->name)),
                             "SCOPE_MISSING");
  }
  if (status.ok()) return caller;
  Note(context, call, caller.ok() ? *caller : Caller(), status, start);
  return status;
}

void CallGuard::Note(const grpc::ServerContextBase& context, const CallInfo& call, const Caller& caller,
                     const absl::Status& status, SteadyTime start) {
  metrics_->CountCall(call.method, status, std::chrono::duration<double>(clock_->SteadyNow() - start).count());
  const bool refused = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
  if (call.audited || refused) audit_->Write({caller.name, context.peer(), call.method, call.job, call.request_id, status});
}

}  // namespace bearing::coordinator
