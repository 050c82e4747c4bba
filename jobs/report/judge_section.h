// What each judge found under each condition, and how far the judges agree.
#ifndef BEARING_JOBS_REPORT_JUDGE_SECTION_H_
#define BEARING_JOBS_REPORT_JUDGE_SECTION_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// Empty for a run with fewer than two judges.
std::string JudgeSection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_JUDGE_SECTION_H_
