#include "coordinator/program_options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/listen_address.h"
#include "coordinator/path_policy.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

constexpr int kUsageError = 2;

// What is not a field of the options as it is said.
struct Said {
  int lease_seconds = 30;
  int rise_minutes = 10;
  int keep_days = 0;
  bool allow_plaintext = false;
  std::vector<std::string> allow_read;
  std::vector<std::string> allow_write;
};

void AddNetworkOptions(CLI::App& app, ServerOptions& server, Said& said) {
  app.add_option("--listen", server.listen, "Address to serve on; port 0 takes a free one")->capture_default_str();
  app.add_option("--worker-listen", server.worker_listen, "Address for workers alone (default: they share --listen)");
  app.add_option("--health-listen", server.health_listen, "Plaintext address for gRPC health checks, for probes");
  app.add_option("--metrics-listen", server.metrics_listen, "Plaintext HTTP address of /metrics, /livez and /readyz");
  app.add_option("--tls-cert", server.tls.cert_file, "PEM certificate (chain) to serve with; read again when it changes");
  app.add_option("--tls-key", server.tls.key_file, "Its PEM key");
  app.add_option("--tls-client-ca", server.tls.client_ca_file, "PEM CAs; clients must show a certificate of one of them");
  app.add_option("--token-file", server.token_file,
                 "Tokens that callers may have (bearing token create); read again when changed");
  app.add_option("--audit-log", server.audit_file, "File that gets a JSON line for each change and each refusal");
  app.add_option("--allow-read", said.allow_read, "Folder or address jobs may read below (repeatable)")
      ->allow_extra_args(false);
  app.add_option("--allow-write", said.allow_write, "Folder or address jobs may write and read below (repeatable)")
      ->allow_extra_args(false);
  app.add_flag("--insecure-allow-plaintext", said.allow_plaintext,
               "Serve unencrypted, and to anybody, on an address that other machines can reach");
}

void AddQueueOptions(CLI::App& app, ServerOptions& server, Said& said) {
  app.add_option("--store", server.store_path, "SQLite file that keeps the jobs")->capture_default_str();
  app.add_option("--lease-seconds", said.lease_seconds, "A job goes back to the queue this long after its last heartbeat")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--max-attempts", server.scheduler.max_attempts, "Worker groups a job may lose before it fails")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--priority-rise-minutes", said.rise_minutes, "A waiting job rises by one priority each time this goes by")
      ->check(CLI::Range(1, 525600))
      ->capture_default_str();
  app.add_option("--keep-days", said.keep_days, "Forget jobs this long after their end; their artifacts stay. 0 = never")
      ->check(CLI::Range(0, 36500))
      ->capture_default_str();
  app.add_option("--keep-jobs", server.scheduler.most_ended, "Forget the oldest ended jobs beyond so many. 0 = no limit")
      ->check(CLI::Range(0, 100'000'000))
      ->capture_default_str();
}

// One address: may it be served like this?
absl::Status CheckAddress(const std::string& text, const ServerOptions& server, const Said& said) {
  BEARING_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(text));
  if (address.loopback || said.allow_plaintext) return absl::OkStatus();
  if (!server.tls.enabled()) return CheckPlaintextAllowed(address, false);
  if (server.token_file.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "refusing to serve everybody on an address that other machines can reach; give --token-file: host=", address.host));
  }
  if (said.allow_read.empty() && said.allow_write.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "refusing to let jobs of other machines use every file; give --allow-read and --allow-write (/ allows all): "
        "host=",
        address.host));
  }
  return absl::OkStatus();
}

absl::Status Check(ServerOptions& server, const Said& said) {
  if (server.tls.cert_file.empty() != server.tls.key_file.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key belong together");
  }
  if (!server.tls.client_ca_file.empty() && !server.tls.enabled()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert and --tls-key");
  }
  BEARING_RETURN_IF_ERROR(CheckAddress(server.listen, server, said));
  if (!server.worker_listen.empty()) BEARING_RETURN_IF_ERROR(CheckAddress(server.worker_listen, server, said));
  for (const std::string& address : {server.health_listen, server.metrics_listen}) {
    if (!address.empty()) BEARING_RETURN_IF_ERROR(ParseListenAddress(address).status());
  }
  if (server.store_path.empty()) {
    return absl::InvalidArgumentError("--store: must be given when neither XDG_STATE_HOME nor HOME is set");
  }
  BEARING_ASSIGN_OR_RETURN(server.jobs.paths, PathPolicy::Create(said.allow_read, said.allow_write));
  return absl::OkStatus();
}

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
  Said said;
  CLI::App app("Queues jobs and hands them to worker groups", "bearing-coordinator");
  app.footer(
      "Other machines are served with TLS, tokens and lists of folders only:\n"
      "  bearing-coordinator --listen 0.0.0.0:7070 --tls-cert server.pem --tls-key server.key --token-file tokens \\\n"
      "      --allow-read /models --allow-write /work\n"
      "See docs/operations.md.");
  AddNetworkOptions(app, options.server, said);
  AddQueueOptions(app, options.server, said);
  app.add_option("--port-file", options.port_file, "File that gets the port once the server serves");
  app.add_option("--log-format", options.log_format, "text or json")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, LogFormat>{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  app.set_version_flag("--version", absl::StrCat("bearing-coordinator ", version));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream err;
    const bool ok = app.exit(error, out, err) == 0;
    return ProgramExit{ok ? 0 : kUsageError, out.str(), err.str()};
  }
  options.server.scheduler.lease_time = std::chrono::seconds(said.lease_seconds);
  options.server.scheduler.priority_rise = std::chrono::minutes(said.rise_minutes);
  options.server.scheduler.keep_ended = std::chrono::hours(24 * said.keep_days);
  if (const absl::Status status = Check(options.server, said); !status.ok()) {
    return ProgramExit{kUsageError, "", absl::StrCat(status.message(), "\n")};
  }
  return options;
}

}  // namespace bearing::coordinator
