// What the commands share. Each command is one file with one function that adds it to the command line; parsing only notes
// what to do (`action`), main() then does it.
#ifndef BEARING_CLI_COMMAND_H_
#define BEARING_CLI_COMMAND_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/output.h"
#include "rpc/client_security.h"

namespace bearing::cli {

// Options of every command.
struct Globals {
  std::string server;
  bool server_given = false;  // By flag, variable or context, not the default.
  std::string context;        // As named by the flag.
  rpc::ClientSecurity security;
  std::string output = "table";
  bool no_progress = false;
};

struct CommandLine {
  CLI::App app;
  Globals globals;
  // Of the command on the command line; returns the exit code.
  std::function<int()> action;
};

// Adds name, global options and every command to `line`, which must outlive what is parsed.
void BuildCommandLine(CommandLine& line);

// Prints "bearing: MESSAGE" to standard error and returns the code.
int Fail(const absl::Status& status, int exit_code);
int Fail(const absl::Status& status);

void AddRunCommand(CommandLine& line);
// Is `run` to use somebody's server? One of the environment or the context in use is for the other commands: `run` means this
// machine unless a flag says otherwise.
bool RunsOnServer(const CommandLine& line);
void AddInitCommand(CommandLine& line);
void AddSchemaCommand(CommandLine& line);
void AddManCommand(CommandLine& line);
void AddPlanCommand(CommandLine& line);
void AddReportCommands(CommandLine& line);  // report, compare
void AddSelectCommand(CommandLine& line);
void AddSearchCommand(CommandLine& line);
void AddEditCommand(CommandLine& line);
void AddTraceCommand(CommandLine& line);
void AddDoctorCommand(CommandLine& line);
void AddProbeCommand(CommandLine& line);
void AddValidateCommand(CommandLine& line);
void AddSubmitCommand(CommandLine& line);
void AddListCommand(CommandLine& line);
void AddDescribeCommand(CommandLine& line);
void AddWatchCommand(CommandLine& line);
void AddCancelCommand(CommandLine& line);
void AddDeleteCommand(CommandLine& line);
void AddLogsCommand(CommandLine& line);
void AddArtifactsCommand(CommandLine& line);
void AddTokenCommand(CommandLine& line);
void AddContextCommand(CommandLine& line);
void AddWorkersCommand(CommandLine& line);
void AddFetchCommand(CommandLine& line);
void AddVersionCommand(CommandLine& line);
void AddCompletionCommand(CommandLine& line);

}  // namespace bearing::cli

#endif  // BEARING_CLI_COMMAND_H_
