// What every call goes through: is the caller known, may it do this, and what is noted about it.
//
// Thread-safe; its parts must outlive it.
#ifndef BEARING_COORDINATOR_CALL_GUARD_H_
#define BEARING_COORDINATOR_CALL_GUARD_H_

#include <grpcpp/support/status.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/audit_log.h"
#include "coordinator/authenticator.h"
#include "coordinator/clock.h"
#include "coordinator/metrics.h"
#include "rpc/status_details.h"

namespace grpc {
class ServerContextBase;
}

namespace bearing::coordinator {

struct CallInfo {
  std::string method;
  rpc::Scope scope = rpc::kScopeRead;
  std::string job = {};         // Where the request names one.
  std::string request_id = {};  // Likewise.
  bool audited = false;         // It changes something. Refusals are always noted.
};

class CallGuard {
 public:
  CallGuard(Authenticator* authenticator, AuditLog* audit, Metrics* metrics, const Clock* clock)
      : authenticator_(authenticator), audit_(audit), metrics_(metrics), clock_(clock) {}

  // Unauthenticated or PermissionDenied for who may not. A refusal is noted here.
  absl::StatusOr<Caller> Admit(const grpc::ServerContextBase& context, const CallInfo& call);

  // Admits the caller, runs `body` (absl::Status of const Caller&, CallInfo&), notes what came of it. `body` may fill in the
  // name of the job.
  template <typename Body>
  grpc::Status Run(const grpc::ServerContextBase& context, CallInfo call, const Body& body) {
    const SteadyTime start = clock_->SteadyNow();
    absl::StatusOr<Caller> caller = Admit(context, call);
    if (!caller.ok()) return rpc::ToGrpc(caller.status());
    const absl::Status status = body(*caller, call);
    Note(context, call, *caller, status, start);
    return rpc::ToGrpc(status);
  }

 private:
  void Note(const grpc::ServerContextBase& context, const CallInfo& call, const Caller& caller, const absl::Status& status,
            SteadyTime start);

  Authenticator* const authenticator_;
  AuditLog* const audit_;
  Metrics* const metrics_;
  const Clock* const clock_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_CALL_GUARD_H_
