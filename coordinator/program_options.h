// The command line of bearing-coordinator.
#ifndef BEARING_COORDINATOR_PROGRAM_OPTIONS_H_
#define BEARING_COORDINATOR_PROGRAM_OPTIONS_H_

#include <string>
#include <variant>

#include "coordinator/log_format.h"
#include "coordinator/server.h"

namespace bearing::coordinator {

struct ProgramOptions {
  ServerOptions server;
  // Where the bound ports are written once the server serves, as lines: the clients' port alone on the first, then "worker N",
  // "health N" and "metrics N" for those that there are; empty = nowhere.
  std::string port_file;
  LogFormat log_format = LogFormat::kText;
};

// The program ends at once: after --help, --version, or a wrong command line.
struct ProgramExit {
  int code = 0;
  std::string out;  // For stdout.
  std::string err;  // For stderr.
};

// $XDG_STATE_HOME/bearing/jobs.db, else $HOME/.local/state/bearing/jobs.db. Empty values count as unset.
std::string DefaultStorePath(const char* xdg_state_home, const char* home);

std::variant<ProgramOptions, ProgramExit> ParseProgramOptions(int argc, const char* const* argv, const std::string& version,
                                                              const std::string& default_store);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_PROGRAM_OPTIONS_H_
