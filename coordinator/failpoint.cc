#include "coordinator/failpoint.h"

#include <signal.h>

#include <atomic>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace bearing::coordinator {

absl::StatusOr<Failpoint> ParseFailpoint(const std::string& text) {
  if (text.empty()) return Failpoint();
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  int hits = 1;
  const bool counted = parts.size() == 3 && absl::SimpleAtoi(parts[2], &hits) && hits > 0;
  if (parts.size() < 2 || parts[0].empty() || parts[1] != "kill" || (parts.size() != 2 && !counted)) {
    return absl::InvalidArgumentError(absl::StrCat("BEARING_FAILPOINT: must be NAME:kill or NAME:kill:N, found ", text));
  }
  auto left = std::make_shared<std::atomic<int>>(hits);
  return Failpoint([name = parts[0], left](const std::string& at) {
    if (at == name && --*left == 0) raise(SIGKILL);
  });
}

}  // namespace bearing::coordinator
