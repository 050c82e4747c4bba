// `bearing report` makes the report of a finished run anew, `bearing compare` sets several side by side.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "jobs/artifacts.h"
#include "jobs/report/compare.h"
#include "jobs/report/run_report.h"

namespace bearing::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> folders;
  std::string html;
};

int Report(const std::string& folder, const Globals& globals) {
  if (const absl::Status status = jobs::RebuildReport(folder); !status.ok()) return Fail(status);
  const std::string page = (std::filesystem::path(folder) / "report.html").string();
  const nlohmann::json document = {{"report", page}};
  switch (ParseOutputFormat(globals.output)) {
    case OutputFormat::kJson:
      std::cout << document.dump(1) << '\n';
      break;
    case OutputFormat::kYaml:
      std::cout << JsonToYaml(document);
      break;
    default:
      std::cout << page << '\n';
  }
  return kExitOk;
}

// One line a property, one column a run.
std::string ToTable(const std::vector<jobs::ComparedRun>& runs) {
  std::vector<std::vector<std::string>> table = {{""}};
  for (size_t i = 0; i < runs.size(); ++i) {
    table[0].push_back(runs[i].name);
    const auto rows = jobs::ComparisonRows(runs, i);
    table.resize(rows.size() + 1);
    for (size_t r = 0; r < rows.size(); ++r) {
      if (i == 0) table[r + 1].push_back(rows[r].first);
      table[r + 1].push_back(rows[r].second);
    }
  }
  return FormatTable(table);
}

int Compare(const CompareOptions& options, const Globals& globals) {
  std::vector<jobs::ComparedRun> runs;
  for (const std::string& folder : options.folders) {
    absl::StatusOr<jobs::ComparedRun> run = jobs::ReadComparedRun(folder);
    if (!run.ok()) return Fail(run.status());
    runs.push_back(*std::move(run));
  }
  if (!options.html.empty()) {
    const absl::Status written = jobs::WriteFileAtomically(options.html, jobs::RenderComparisonHtml(runs));
    if (!written.ok()) return Fail(written);
  }
  switch (ParseOutputFormat(globals.output)) {
    case OutputFormat::kJson:
      std::cout << jobs::ComparisonJson(runs).dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
      break;
    case OutputFormat::kYaml:
      std::cout << JsonToYaml(jobs::ComparisonJson(runs));
      break;
    case OutputFormat::kName:
      for (const jobs::ComparedRun& run : runs) std::cout << run.name << '\n';
      break;
    default:
      std::cout << ToTable(runs);
  }
  return kExitOk;
}

}  // namespace

void AddReportCommands(CommandLine& line) {
  auto folder = std::make_shared<std::string>();
  CLI::App* report = line.app.add_subcommand("report", "Make report.html and report.json of a finished job anew");
  report->add_option("DIR", *folder, "Output folder of a finished job")->required()->check(CLI::ExistingDirectory);
  report->footer(
      "Nothing is run: the report is made from the artifacts, which are checked against the manifest first.\n\n"
      "Example:\n  bearing report out/refusal");
  report->callback([&line, folder] { line.action = [&line, folder] { return Report(*folder, line.globals); }; });

  auto options = std::make_shared<CompareOptions>();
  CLI::App* compare = line.app.add_subcommand("compare", "Set finished jobs side by side");
  compare->add_option("DIR", options->folders, "Output folders of finished jobs")
      ->required()
      ->expected(1, 64)
      ->check(CLI::ExistingDirectory);
  compare->add_option("--html", options->html, "Write a page with the table and the heat maps of all to this file");
  compare->footer(
      "Directions are compared by their cosine where the model is the same.\n\n"
      "Example:\n  bearing compare out/refusal out/french --html compare.html");
  compare->callback([&line, options] { line.action = [&line, options] { return Compare(*options, line.globals); }; });
}

}  // namespace bearing::cli
