// What the report is made of. To add a section: a file of your own with up to three functions (read an artifact, write HTML,
// write JSON), a struct in ReportData for what is between them, and one line in each list: sections in report_sections.cc,
// sources at the end of run_report.cc, numbers at the end of report_json.cc.
#ifndef BEARING_JOBS_REPORT_REPORT_SECTIONS_H_
#define BEARING_JOBS_REPORT_REPORT_SECTIONS_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "jobs/report/report.h"

namespace bearing::jobs {

// A section of report.html, in reading order.
struct ReportSection {
  std::string_view id;     // Anchor: lower case, dashes; no other element of the page has it.
  std::string_view title;  // Heading and entry of the contents, escaped.
  // What stands below the heading; empty when there is nothing to show: then the section is left out.
  std::string (*body)(const ReportData& data);
};
absl::Span<const ReportSection> ReportSections();

// An artifact that the report is read from.
struct ReportSource {
  std::string_view file;  // Of the output folder.
  bool required;          // Else left out by jobs that skip its stage, and by older versions.
  // `path` is that of the file, which exists. DataLoss naming it when it is not as Bearing writes it.
  absl::Status (*read)(const std::string& path, ReportData& data);
};
absl::Span<const ReportSource> ReportSources();

// Numbers of report.json beyond those that report_json.cc writes itself.
struct ReportNumbers {
  std::string_view key;
  nlohmann::ordered_json (*json)(const ReportData& data);
};
absl::Span<const ReportNumbers> MoreReportNumbers();

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_REPORT_SECTIONS_H_
