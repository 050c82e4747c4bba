// A report with the recorded scores of yi-6b-chat, norms and completions made up.
#ifndef BEARING_TESTS_JOBS_REPORT_FIXTURE_H_
#define BEARING_TESTS_JOBS_REPORT_FIXTURE_H_

#include "jobs/report/report.h"

namespace bearing::jobs {

// With `complete` every candidate has all scores; without, those that "cheap tests first" measures.
ReportData ExampleReport(bool complete);

// 80 layers and 5 positions, all scored, with completions that are hard to show: markup, right-to-left text, very long words.
ReportData LargeReport();

// Counts the completions of `data` anew, after a test has changed them.
void CountCompletions(ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_REPORT_FIXTURE_H_
