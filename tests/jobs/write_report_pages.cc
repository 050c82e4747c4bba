// write_report_pages FOLDER: pages of the product's code for the tests in a browser.
#include <iostream>
#include <string>

#include "jobs/artifacts.h"
#include "jobs/report/compare.h"
#include "jobs/report/report.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

absl::Status WritePages(const std::string& folder) {
  const auto write = [&](const char* name, const std::string& html) { return WriteFileAtomically(folder + "/" + name, html); };
  ReportData none = ExampleReport(false);
  none.rule.kl_max = 0.001;
  none.selected = -1;
  std::vector<ComparedRun> runs;
  for (int i = 0; i < 5; ++i) {
    ComparedRun run{.name = i == 2 ? "a-rather-long-name-of-a-folder-with-a-run" : "run-" + std::to_string(i),
                    .report = i == 4 ? LargeReport() : ExampleReport(i % 2 == 0),
                    .direction = {1.0, 0.5 * i, -0.25 * i}};
    runs.push_back(std::move(run));
  }
  for (const auto& [name, html] :
       std::vector<std::pair<const char*, std::string>>{{"example.html", RenderReportHtml(ExampleReport(false))},
                                                        {"large.html", RenderReportHtml(LargeReport())},
                                                        {"none.html", RenderReportHtml(none)},
                                                        {"compare.html", RenderComparisonHtml(runs)}}) {
    if (const absl::Status written = write(name, html); !written.ok()) return written;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bearing::jobs

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const absl::Status status = bearing::jobs::WritePages(argv[1]);
  if (!status.ok()) std::cerr << status << '\n';
  return status.ok() ? 0 : 1;
}
