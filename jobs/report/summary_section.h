// The top of the report: what was found, how sure, and what it does.
#ifndef BEARING_JOBS_REPORT_SUMMARY_SECTION_H_
#define BEARING_JOBS_REPORT_SUMMARY_SECTION_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

std::string SummarySection(const ReportData& data);

// Rates of the concept in the completions before and after, as a table with bars; empty without completions.
std::string EffectSection(const ReportData& data);

// The same by category of the prompts; empty where there is only one a side.
std::string CategorySection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SUMMARY_SECTION_H_
