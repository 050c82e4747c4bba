// `bearing delete`: forget a job that has ended.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

int Delete(const std::vector<std::string>& names, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  for (const std::string& name : names) {
    if (const absl::Status status = client.Delete(name); !status.ok()) return Fail(status);
    std::cout << name << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddDeleteCommand(CommandLine& line) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* command = line.app.add_subcommand("delete", "Forget a job that has ended; its artifacts stay");
  command->add_option("NAME", *names, "Names of the jobs")->type_name(kJobType)->required();
  command->footer(
      "Removes the server's record and log of the job, not its output. A job that has not ended is exit code 6: cancel it "
      "first.\n\n"
      "Example:\n  bearing delete refusal-3f9a1c\n  bearing delete $(bearing list --state failed -o name)");
  command->callback([&line, names] { line.action = [&line, names] { return Delete(*names, line.globals); }; });
}

}  // namespace bearing::cli
