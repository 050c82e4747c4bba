// `bearing version`.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

int Version(const Globals& globals) {
  nlohmann::json versions = {{"client", BEARING_VERSION}};
  if (globals.server_given) {
    JobsClient client(globals.server, globals.security);
    const absl::StatusOr<std::string> version = client.Version();
    if (!version.ok()) return Fail(version.status());
    versions["server"] = *version;
  }
  switch (ParseOutputFormat(globals.output)) {
    case OutputFormat::kJson:
      std::cout << versions.dump(2) << '\n';
      break;
    case OutputFormat::kYaml:
      std::cout << JsonToYaml(versions);
      break;
    default:
      std::cout << "bearing " << BEARING_VERSION << '\n';
      if (versions.contains("server")) std::cout << "server " << versions["server"].get<std::string>() << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddVersionCommand(CommandLine& line) {
  CLI::App* command = line.app.add_subcommand("version", "Print the version, and the server's when one is named");
  command->footer("Example:\n  bearing version --server 127.0.0.1:7070");
  command->callback([&line] { line.action = [&line] { return Version(line.globals); }; });
}

}  // namespace bearing::cli
