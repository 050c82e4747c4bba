#include "coordinator/audit_log.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "rpc/status_details.h"

namespace bearing::coordinator {
namespace {

constexpr size_t kLongestText = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path, const Clock* clock, spdlog::logger* logger) {
  int file = -1;
  if (!path.empty()) {
    file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("--audit-log: cannot be written: file=", path));
  }
  return std::unique_ptr<AuditLog>(new AuditLog(file, clock, logger));
}

AuditLog::~AuditLog() {
  if (file_ >= 0) close(file_);
}

void AuditLog::Write(const Entry& entry) {
  if (file_ < 0) return;
  nlohmann::json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(clock_->WallNow()), absl::UTCTimeZone());
  line["caller"] = entry.caller;
  line["peer"] = entry.peer;
  line["method"] = entry.method;
  if (!entry.job.empty()) line["job"] = entry.job.substr(0, kLongestText);
  if (!entry.request_id.empty()) line["request_id"] = entry.request_id.substr(0, kLongestText);
  line["code"] = absl::StatusCodeToString(entry.outcome.code());
  if (!entry.outcome.ok()) line["reason"] = rpc::ReasonOf(entry.outcome);
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  // One write of a file opened for appending: lines of several threads do not mix.
  if (write(file_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    logger_->error("audit log not written: error={}", std::strerror(errno));
  }
}

}  // namespace bearing::coordinator
