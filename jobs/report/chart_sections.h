// Sections that are one chart each; empty when there is nothing to draw.
#ifndef BEARING_JOBS_REPORT_CHART_SECTIONS_H_
#define BEARING_JOBS_REPORT_CHART_SECTIONS_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// Norms of the mean residuals by layer.
std::string NormSection(const ReportData& data);

// Induce against KL of the candidates.
std::string ScatterSection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_CHART_SECTIONS_H_
