// The files beside the weights that make a model folder usable and are copied with it: configs, tokenizer, chat templates,
// licence. Code (*.py), other weight formats and the model card are left behind.
#ifndef BEARING_SHARDING_SIDE_FILES_H_
#define BEARING_SHARDING_SIDE_FILES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::sharding {

// Those that are there, as sorted paths relative to the folder.
absl::StatusOr<std::vector<std::string>> FindSideFiles(const std::string& model_dir);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SIDE_FILES_H_
