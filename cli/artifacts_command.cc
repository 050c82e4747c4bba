// `bearing artifacts`: what a finished job left.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

int Artifacts(const std::string& name, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  const absl::StatusOr<bearing::v1::ListArtifactsResponse> found = client.Artifacts(name);
  if (!found.ok()) return Fail(found.status());
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kTable) {
    std::vector<std::vector<std::string>> rows = {{"NAME", "SIZE", "SHA256"}};
    for (const auto& file : found->artifacts()) rows.push_back({file.name(), absl::StrCat(file.size()), file.sha256()});
    std::cout << FormatTable(rows);
    std::cerr << "in " << found->output() << '\n';
  } else if (format == OutputFormat::kName) {
    for (const auto& file : found->artifacts()) std::cout << file.name() << '\n';
  } else {
    const absl::StatusOr<std::string> text = Encode(*found, format);
    if (!text.ok()) return Fail(text.status());
    std::cout << *text;
  }
  return kExitOk;
}

}  // namespace

void AddArtifactsCommand(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("artifacts", "List the files of a finished job, with size and sha256");
  command->add_option("NAME", *name, "Name of the job")->type_name(kJobType)->required();
  command->footer(
      "Example:\n  bearing artifacts refusal-3f9a1c\n  bearing artifacts refusal-3f9a1c -o json | jq -r '.artifacts[].name'");
  command->callback([&line, name] { line.action = [&line, name] { return Artifacts(*name, line.globals); }; });
}

}  // namespace bearing::cli
