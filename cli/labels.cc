#include "cli/labels.h"

#include "absl/strings/str_cat.h"

namespace bearing::cli {

absl::Status AddLabels(const std::vector<std::string>& labels, google::protobuf::Map<std::string, std::string>& map) {
  for (const std::string& label : labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--label: expected KEY=VALUE, found ", label));
    }
    map[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return absl::OkStatus();
}

}  // namespace bearing::cli
