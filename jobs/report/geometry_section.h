// How far the two sets of prompts lie apart, layer by layer: curves, projections at one layer, principal components.
#ifndef BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_
#define BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// Empty without data.
std::string GeometrySection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_
