// Who did what, and what came of it: one JSON object a line, for every call that changes something and every refusal.
//
// {"time", "caller", "peer", "method", "job", "request_id", "code", "reason"}. Nothing a client sends is quoted but names and
// ids, cut to 256 bytes. A line is written whole before the call is answered; a file that cannot be written is logged, and the
// call goes on. Thread-safe.
#ifndef BEARING_COORDINATOR_AUDIT_LOG_H_
#define BEARING_COORDINATOR_AUDIT_LOG_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/clock.h"

namespace spdlog {
class logger;
}

namespace bearing::coordinator {

class AuditLog {
 public:
  // Appends to the file, which only its owner may read if it is new. An empty path: no log.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path, const Clock* clock, spdlog::logger* logger);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  struct Entry {
    std::string caller;
    std::string peer;
    std::string method;
    std::string job;
    std::string request_id;
    absl::Status outcome;
  };
  void Write(const Entry& entry);

 private:
  AuditLog(int file, const Clock* clock, spdlog::logger* logger) : file_(file), clock_(clock), logger_(logger) {}

  const int file_;  // -1 = none.
  const Clock* const clock_;
  spdlog::logger* const logger_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_AUDIT_LOG_H_
