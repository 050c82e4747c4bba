// What a check of `bearing doctor` found.
#ifndef BEARING_CLI_DOCTOR_FINDING_H_
#define BEARING_CLI_DOCTOR_FINDING_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace bearing::cli {

struct Finding {
  enum class Result {
    kOk,
    kWarning,  // Works, but badly, or only until something is used that needs it.
    kBroken,   // Jobs cannot run.
    kSkipped,  // Could not be looked at, or was not asked for.
  };
  std::string check;
  Result result = Result::kOk;
  std::string found;  // One line, never with a secret.
  std::string mend;   // What to do about a warning or a break.
};

// Columns CHECK, RESULT, FOUND, and below what to mend.
std::string FormatFindings(const std::vector<Finding>& findings);

// {"ok": false where something is broken, "checks": [{"check", "result", "found", "mend"}]}; result is "ok", "warning",
// "broken" or "skipped".
nlohmann::json FindingsJson(const std::vector<Finding>& findings);

bool AnyBroken(const std::vector<Finding>& findings);

// One line of printable ASCII of a message from elsewhere, not too long.
std::string OneLine(const std::string& text);

}  // namespace bearing::cli

#endif  // BEARING_CLI_DOCTOR_FINDING_H_
