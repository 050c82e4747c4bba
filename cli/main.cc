// bearing: the command line.
#include <optional>
#include <set>
#include <string>

#include "cli/command.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/launcher.h"

namespace bearing::cli {
namespace {

// Commands that talk to no server work whatever state the config of servers is in.
bool NeedsServer(const CommandLine& line) {
  static const std::set<std::string> kLocal = {"plan",       "select",  "report", "compare",  "search",
                                               "edit",       "trace",   "probe",  "validate", "token",
                                               "completion", "context", "init",   "schema",   "man"};
  // They speak of this machine, and of a server only where one is named; the context in use does not name one.
  static const std::set<std::string> kOfThisMachine = {"version", "doctor"};
  const std::string name = line.app.get_subcommands().front()->get_name();
  if (name == "run") return RunsOnServer(line);
  if (kOfThisMachine.contains(name)) {
    const Variables variables = ProcessVariables();
    return RunsOnServer(line) || !variables("BEARING_SERVER").empty() || !variables("BEARING_CONTEXT").empty();
  }
  return !kLocal.contains(name);
}

int Main(int argc, char** argv) {
  CommandLine line;
  CLI::App& app = line.app;
  BuildCommandLine(line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitInvalid;
  }
  if (NeedsServer(line)) {
    if (const absl::Status resolved = ResolveConnection(ProcessVariables(), line.globals); !resolved.ok()) {
      return Fail(resolved);
    }
  }
  return line.action();
}

}  // namespace

}  // namespace bearing::cli

int main(int argc, char** argv) {
  if (const std::optional<int> code = bearing::cli::RunLauncher(argc, argv)) return *code;
  return bearing::cli::Main(argc, argv);
}
