#include "coordinator/program_options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "coordinator/listen_address.h"

namespace bearing::coordinator {
namespace {

constexpr int kUsageError = 2;

}  // namespace

std::string DefaultStorePath(const char* xdg_state_home, const char* home) {
  if (xdg_state_home != nullptr && *xdg_state_home != '\0') return absl::StrCat(xdg_state_home, "/bearing/jobs.db");
  if (home != nullptr && *home != '\0') return absl::StrCat(home, "/.local/state/bearing/jobs.db");
  return "";
}

std::variant<ProgramOptions, ProgramExit> ParseProgramOptions(int argc, const char* const* argv, const std::string& version,
                                                              const std::string& default_store) {
  ProgramOptions options;
  options.server.store_path = default_store;
  options.server.jobs.version = version;
  int lease_seconds = 30;
  bool allow_plaintext = false;
  CLI::App app("Queues jobs and hands them to worker groups", "bearing-coordinator");
  app.add_option("--listen", options.server.listen, "Address to serve on; port 0 takes a free one")->capture_default_str();
  app.add_option("--store", options.server.store_path, "SQLite file that keeps the jobs")->capture_default_str();
  app.add_option("--port-file", options.port_file, "File that gets the port once the server serves");
  app.add_option("--lease-seconds", lease_seconds, "A job goes back to the queue this long after its last heartbeat")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--max-attempts", options.server.scheduler.max_attempts, "Worker groups a job may lose before it fails")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--log-format", options.log_format, "text or json")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, LogFormat>{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  app.add_flag("--insecure-allow-plaintext", allow_plaintext, "Serve unencrypted on an address that other machines can reach");
  app.set_version_flag("--version", absl::StrCat("bearing-coordinator ", version));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream err;
    const bool ok = app.exit(error, out, err) == 0;
    return ProgramExit{ok ? 0 : kUsageError, out.str(), err.str()};
  }
  options.server.scheduler.lease_time = std::chrono::seconds(lease_seconds);
  absl::Status status;
  if (auto address = ParseListenAddress(options.server.listen); !address.ok()) {
    status = address.status();
  } else {
    status = CheckPlaintextAllowed(*address, allow_plaintext);
  }
  if (status.ok() && options.server.store_path.empty()) {
    status = absl::InvalidArgumentError("--store: must be given when neither XDG_STATE_HOME nor HOME is set");
  }
  if (!status.ok()) return ProgramExit{kUsageError, "", absl::StrCat(status.message(), "\n")};
  return options;
}

}  // namespace bearing::coordinator
