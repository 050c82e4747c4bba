// Induce against KL of every candidate that has both scores, with the thresholds and the part of the plane that passes.
#ifndef BEARING_JOBS_REPORT_SVG_SCATTER_H_
#define BEARING_JOBS_REPORT_SVG_SCATTER_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// Empty when fewer than two candidates have both scores.
std::string RenderScatter(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SVG_SCATTER_H_
