// The style sheet of the report: light and dark, phone and paper.
#ifndef BEARING_JOBS_REPORT_REPORT_STYLE_H_
#define BEARING_JOBS_REPORT_REPORT_STYLE_H_

#include <string>

namespace bearing::jobs {

std::string ReportStyle();

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_REPORT_STYLE_H_
