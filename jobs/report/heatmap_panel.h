// The three heat maps of selection (bypass, induce, KL) with their shared legend.
#ifndef BEARING_JOBS_REPORT_HEATMAP_PANEL_H_
#define BEARING_JOBS_REPORT_HEATMAP_PANEL_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

std::string HeatmapSection(const ReportData& data);

// The same where a page has several: ids of elements start with the prefix.
std::string HeatmapSection(const ReportData& data, const std::string& id_prefix);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_HEATMAP_PANEL_H_
