// bearing: the command line.
#include <cstdlib>
#include <optional>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/launcher.h"

namespace bearing::cli {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:7070";

int Main(int argc, char** argv) {
  CommandLine line;
  CLI::App& app = line.app;
  app.name("bearing");
  app.description(
      "Bearing finds directions in the residual stream of language models, measures what they do and edits the weights.");
  app.footer(
      "Start here:\n  bearing run examples/refusal.yaml\n\n"
      "Exit codes: 0 ok, 1 the job failed, 2 wrong usage or job file, 3 not found, 4 not permitted, 5 server not reached,\n"
      "6 conflict, 7 the job was cancelled, 130 interrupted.");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", line.globals.server, "Server HOST:PORT (default: BEARING_SERVER, else 127.0.0.1:7070)");
  app.add_option("--ca-file", line.globals.security.ca_file, "PEM CAs of the server; turns on TLS (BEARING_CA_FILE)");
  app.add_flag("--tls", line.globals.security.tls, "Encrypt, with the system's CAs (BEARING_TLS=1)");
  app.add_option("--cert", line.globals.security.cert_file, "PEM certificate of this client (BEARING_CERT_FILE)");
  app.add_option("--key", line.globals.security.key_file, "Its PEM key (BEARING_KEY_FILE)");
  app.add_option("--token-file", line.globals.security.token_file, "File with this client's token (BEARING_TOKEN_FILE)");
  app.add_flag("--insecure-plaintext-token", line.globals.security.allow_plaintext,
               "Send the token unencrypted to another machine");
  app.add_option("-o,--output", line.globals.output, "What standard output holds")
      ->check(CLI::IsMember({"table", "json", "yaml", "name"}));
  app.add_flag("--no-progress", line.globals.no_progress, "Show no progress");
  AddRunCommand(line);
  AddPlanCommand(line);
  AddSelectCommand(line);
  AddReportCommands(line);
  AddSearchCommand(line);
  AddEditCommand(line);
  AddTraceCommand(line);
  AddProbeCommand(line);
  AddValidateCommand(line);
  AddSubmitCommand(line);
  AddListCommand(line);
  AddDescribeCommand(line);
  AddWatchCommand(line);
  AddCancelCommand(line);
  AddDeleteCommand(line);
  AddLogsCommand(line);
  AddArtifactsCommand(line);
  AddFetchCommand(line);
  AddWorkersCommand(line);
  AddTokenCommand(line);
  AddDoctorCommand(line);
  AddVersionCommand(line);
  AddCompletionCommand(line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitInvalid;
  }
  const char* server = std::getenv("BEARING_SERVER");
  const bool in_environment = server != nullptr && *server != '\0';
  line.globals.server_given = !line.globals.server.empty() || in_environment;
  if (line.globals.server.empty()) line.globals.server = in_environment ? server : kDefaultServer;
  line.globals.security = rpc::WithEnvironment(line.globals.security);
  return line.action();
}

}  // namespace

}  // namespace bearing::cli

int main(int argc, char** argv) {
  if (const std::optional<int> code = bearing::cli::RunLauncher(argc, argv)) return *code;
  return bearing::cli::Main(argc, argv);
}
