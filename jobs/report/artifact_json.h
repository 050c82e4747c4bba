// Reads artifacts that are JSON. Stateless.
#ifndef BEARING_JOBS_REPORT_ARTIFACT_JSON_H_
#define BEARING_JOBS_REPORT_ARTIFACT_JSON_H_

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "jobs/report/report.h"

namespace bearing::jobs {

// Calls `read`; what nlohmann throws when a field is missing or of another kind becomes DataLoss that names the file.
absl::Status GuardJson(const std::string& path, const std::function<absl::Status()>& read);

// Parses the file and calls `take` under that guard.
absl::Status WithJson(const std::string& path, const std::function<absl::Status(const nlohmann::json&)>& take);

// A reader for the list of sources (report_sections.h) from a function that takes a document.
template <absl::Status (*take)(const nlohmann::json&, ReportData&)>
absl::Status ReadJson(const std::string& path, ReportData& data) {
  return WithJson(path, [&](const nlohmann::json& document) { return take(document, data); });
}

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_ARTIFACT_JSON_H_
