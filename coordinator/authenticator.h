// Who calls, by the bearer token of the call.
//
// The file of tokens (rpc/tokens.h) is read again when it changes; a new file that is wrong is logged and the old one stays in
// force. Without a file everybody may do everything, which is for loopback. Thread-safe. Clock and logger must outlive it.
#ifndef BEARING_COORDINATOR_AUTHENTICATOR_H_
#define BEARING_COORDINATOR_AUTHENTICATOR_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/clock.h"
#include "rpc/tokens.h"

namespace spdlog {
class logger;
}

namespace bearing::coordinator {

struct Caller {
  std::string name;  // Of the token; empty where none is asked for.
  unsigned scopes = 0;

  bool Has(rpc::Scope scope) const { return (scopes & scope) != 0; }
  // May it change a job of this owner?
  bool Owns(const std::string& owner) const { return Has(rpc::kScopeAdmin) || (Has(rpc::kScopeSubmit) && name == owner); }
};

class Authenticator {
 public:
  // An empty path: no tokens. Fails for a file that cannot be read or is wrong.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Open(const std::string& path, const Clock* clock,
                                                             spdlog::logger* logger);

  // `header` is the value of "authorization", empty if there is none. Unauthenticated when the token is missing, unknown or
  // expired; no message repeats it.
  absl::StatusOr<Caller> Authenticate(std::string_view header);

  bool asks_for_tokens() const { return !path_.empty(); }

 private:
  Authenticator(std::string path, const Clock* clock, spdlog::logger* logger)
      : path_(std::move(path)), clock_(clock), logger_(logger) {}

  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LoadIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Clock* const clock_;
  spdlog::logger* const logger_;
  absl::Mutex mutex_;
  std::string seen_ ABSL_GUARDED_BY(mutex_);       // What the file looked like that is in force.
  std::string complaint_ ABSL_GUARDED_BY(mutex_);  // Why what came after it was not taken, as it was logged.
  SteadyTime looked_at_ ABSL_GUARDED_BY(mutex_);
  std::vector<rpc::TokenEntry> tokens_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_AUTHENTICATOR_H_
