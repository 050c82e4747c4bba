#include <string>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"

namespace bearing::cli {
namespace {

std::string ExitCodesText() {
  std::string text = "Exit codes:";
  for (const ExitCodeMeaning& exit : ExitCodeMeanings()) absl::StrAppend(&text, "\n  ", exit.code, "  ", exit.meaning);
  return text;
}

}  // namespace

void BuildCommandLine(CommandLine& line) {
  CLI::App& app = line.app;
  app.name("bearing");
  app.description(
      "Bearing finds directions in the residual stream of language models, measures what they do and edits the weights.");
  app.footer(absl::StrCat("Example:\n  bearing init job.yaml\n  bearing run job.yaml\n\n", ExitCodesText()));
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", line.globals.server,
                 "Server HOST:PORT (default: BEARING_SERVER, the context in use, else 127.0.0.1:7070)");
  app.add_option("--context", line.globals.context, "Context with the server, see `bearing context` (BEARING_CONTEXT)");
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
  AddInitCommand(line);
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
  AddContextCommand(line);
  AddTokenCommand(line);
  AddDoctorCommand(line);
  AddSchemaCommand(line);
  AddVersionCommand(line);
  AddCompletionCommand(line);
  AddManCommand(line);
}

}  // namespace bearing::cli
