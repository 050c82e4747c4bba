// Several finished runs side by side.
#ifndef BEARING_JOBS_REPORT_COMPARE_H_
#define BEARING_JOBS_REPORT_COMPARE_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/report/report.h"

namespace bearing::jobs {

struct ComparedRun {
  std::string name;  // Last part of the folder.
  ReportData report;
  std::vector<double> direction;  // Mean difference of the chosen candidate; empty when none was chosen.
};

// DataLoss as ReadFinishedReport.
absl::StatusOr<ComparedRun> ReadComparedRun(const std::string& folder);

// Cosine of the chosen directions; nothing for runs on different models, whose directions share no space.
std::optional<double> DirectionCosine(const ComparedRun& a, const ComparedRun& b);

// What a table shows of a run: name of the row -> text of the cell. All runs have the same rows.
std::vector<std::pair<std::string, std::string>> ComparisonRows(const std::vector<ComparedRun>& runs, size_t run);

// {"runs": [{"name", "model", "layer", ... }], "direction_cosines": [[...]]}
nlohmann::json ComparisonJson(const std::vector<ComparedRun>& runs);

// One self-contained page: the table, then the heat maps of each run.
std::string RenderComparisonHtml(const std::vector<ComparedRun>& runs);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_COMPARE_H_
