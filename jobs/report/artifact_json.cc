#include "jobs/report/artifact_json.h"

#include <nlohmann/json.hpp>

#include "jobs/artifacts.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {

absl::Status GuardJson(const std::string& path, const std::function<absl::Status()>& read) {
  try {
    return read();
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(Concat("artifact is not as Bearing writes it: ", error.what(), ": file=", path));
  }
}

absl::Status WithJson(const std::string& path, const std::function<absl::Status(const nlohmann::json&)>& take) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return GuardJson(path, [&] { return take(nlohmann::json::parse(text)); });
}

}  // namespace bearing::jobs
