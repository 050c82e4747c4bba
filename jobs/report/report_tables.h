// The tables of the report, and the completions side by side. Each function is one section, empty when there is nothing to
// show.
#ifndef BEARING_JOBS_REPORT_REPORT_TABLES_H_
#define BEARING_JOBS_REPORT_REPORT_TABLES_H_

#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// What discarded how many, and all scores as a table: the heat maps for those who cannot see them.
std::string CandidateSection(const ReportData& data);
std::string MetricSection(const ReportData& data);
std::string PromptSection(const ReportData& data);
std::string CompletionSection(const ReportData& data);
std::string VerificationSection(const ReportData& data);
std::string RunSection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_REPORT_TABLES_H_
