// The report of a run from its artifacts: made by the last stage of a job, and again by `bearing report` and `bearing compare`.
#ifndef BEARING_JOBS_REPORT_RUN_REPORT_H_
#define BEARING_JOBS_REPORT_RUN_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "jobs/report/report.h"

namespace bearing::jobs {

// Reads collect.json, means.safetensors and candidates.json of the folder, and completions.jsonl and verify.json where the job
// had those stages. `provenance` is what the manifest of the run says (model, prompts, settings, ranks, version). DataLoss
// naming the artifact that is missing or not as it should be.
absl::StatusOr<ReportData> ReadReport(const std::string& folder, const nlohmann::json& provenance);

// The same for a finished run: checks what it reads against the manifest first, and keeps the time that its report bears.
absl::StatusOr<ReportData> ReadFinishedReport(const std::string& folder);

// Makes report.html and report.json of a finished run anew, and enters them in its manifest.
absl::Status RebuildReport(const std::string& folder);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_RUN_REPORT_H_
