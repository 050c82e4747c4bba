// What the intervention costs: one table over all measures.
#ifndef BEARING_JOBS_REPORT_COST_SECTION_H_
#define BEARING_JOBS_REPORT_COST_SECTION_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace bearing::jobs {

struct ReportData;

// A line of the table: one metric on one set.
struct CostRow {
  struct Value {
    std::string intervention;  // "baseline", "ablation", "addition"
    double value = 0;
    std::optional<double> standard_error;                         // Unset with a single item.
    std::optional<double> difference, difference_standard_error;  // From baseline.
  };
  std::string kind, set, metric;
  int64_t items = 0;
  std::string unit;  // What the items are.
  int64_t tokens = 0;
  std::vector<Value> values;  // Baseline may be missing.
};

// From costs.json; throws nlohmann's exceptions where it is not as Bearing writes it.
std::vector<CostRow> CostRowsOf(const nlohmann::json& costs);

// Empty without data.
std::string CostSection(const ReportData& data);

// For report.json.
nlohmann::ordered_json CostJson(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_COST_SECTION_H_
