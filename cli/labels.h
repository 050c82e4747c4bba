// Labels as flags give them.
#ifndef BEARING_CLI_LABELS_H_
#define BEARING_CLI_LABELS_H_

#include <google/protobuf/map.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bearing::cli {

// Adds "KEY=VALUE" texts to `map`. InvalidArgument, naming --label, for another text.
absl::Status AddLabels(const std::vector<std::string>& labels, google::protobuf::Map<std::string, std::string>& map);

}  // namespace bearing::cli

#endif  // BEARING_CLI_LABELS_H_
