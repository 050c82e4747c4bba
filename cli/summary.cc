#include "cli/summary.h"

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/job_names.h"
#include "cli/output.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

using Row = std::vector<std::string>;

// "96.9 % -> 1.6 %"; empty when neither was measured.
std::string Rates(double before, double after) {
  if (before < 0 || after < 0) return "";
  return absl::StrFormat("%.1f %% -> %.1f %%", 100 * before, 100 * after);
}

std::string Below(const std::string& folder, const std::string& path) {
  if (storage::HasScheme(path)) return path;
  if (storage::HasScheme(folder)) return absl::StrCat(folder, "/", path);
  return (std::filesystem::path(folder) / path).lexically_normal().string();
}

}  // namespace

std::string ResultTable(const bearing::v1::Job& job) {
  const bearing::v1::JobResult& result = job.result();
  const std::string& name = job.spec().concept_spec().name();
  const std::string concept_name = name.empty() ? "concept" : name;
  std::vector<Row> rows = {
      {"chosen", absl::StrFormat("layer %d, position %d", result.layer(), result.position())},
      {"bypass", absl::StrFormat("%.3f", result.bypass())},
      {"induce", absl::StrFormat("%.3f", result.induce())},
      {"KL", absl::StrFormat("%.4f", result.kl())},
  };
  if (const std::string rates = Rates(result.positive_baseline(), result.positive_ablated()); !rates.empty()) {
    rows.push_back({absl::StrCat(concept_name, ", positive prompts"), absl::StrCat(rates, "  (direction removed)")});
  }
  if (const std::string rates = Rates(result.negative_baseline(), result.negative_added()); !rates.empty()) {
    rows.push_back({absl::StrCat(concept_name, ", negative prompts"), absl::StrCat(rates, "  (direction added)")});
  }
  const std::string& output = job.spec().output();
  rows.push_back({"report", Below(output, result.report().empty() ? "report.html" : result.report())});
  if (!job.spec().edit().skip()) rows.push_back({"checkpoint", Below(output, "checkpoint")});
  return FormatTable(rows);
}

std::string ErrorText(const bearing::v1::Job& job) {
  if (!job.has_error()) return "";
  const std::string stage = StageName(job.error().stage());
  return absl::StrCat(stage, stage.empty() ? "" : ": ", job.error().reason(), job.error().reason().empty() ? "" : ": ",
                      job.error().message());
}

}  // namespace bearing::cli
