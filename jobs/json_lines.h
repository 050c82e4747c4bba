// Files with one JSON object a line.
#ifndef BEARING_JOBS_JSON_LINES_H_
#define BEARING_JOBS_JSON_LINES_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::jobs {

// Calls `take` with each object and "FILE:LINE", and skips blank lines; with `count` > 0 takes the first `count` and is an
// error if the file has fewer. NotFound, or InvalidArgument with file and line: not UTF-8, not JSON, not an object, no object
// at all.
absl::Status ForEachJsonLine(const std::string& path, int count,
                             const std::function<absl::Status(const std::string& where, const nlohmann::json& object)>& take);

// The text at `key` of `object`. InvalidArgument where it is missing, no string or blank.
absl::StatusOr<std::string> TextAt(const std::string& where, const nlohmann::json& object, const std::string& key);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JSON_LINES_H_
