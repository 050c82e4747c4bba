// Reads completions.jsonl for the report: counts every line, and keeps those of the prompts that are shown. Stateless.
#ifndef BEARING_JOBS_REPORT_COMPLETION_READER_H_
#define BEARING_JOBS_REPORT_COMPLETION_READER_H_

#include <string>

#include "absl/status/status.h"
#include "jobs/report/report.h"

namespace bearing::jobs {

// Fills counts, completions and shown of `data`, whose judges are there already. The file is read twice, a line at a time; 4
// bytes a line and 1 byte a prompt are held. DataLoss naming the file when it is not as Bearing writes it.
absl::Status TakeCompletions(const std::string& file, ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_COMPLETION_READER_H_
