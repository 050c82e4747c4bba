#include "cli/connection.h"

#include <cstdlib>
#include <string>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:7070";

// What `more` says where `security` says nothing. A certificate and its key stay together, and so do the two ways to give a
// token.
void FillFrom(const rpc::ClientSecurity& more, rpc::ClientSecurity& security) {
  if (security.ca_file.empty()) security.ca_file = more.ca_file;
  if (security.cert_file.empty() && security.key_file.empty()) {
    security.cert_file = more.cert_file;
    security.key_file = more.key_file;
  }
  if (security.token_file.empty() && security.token.empty()) {
    security.token_file = more.token_file;
    security.token = more.token;
  }
  security.tls = security.tls || more.tls;
  security.allow_plaintext = security.allow_plaintext || more.allow_plaintext;
}

}  // namespace

Variables ProcessVariables() {
  return [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
}

absl::Status ResolveConnection(const Variables& variables, Globals& globals) {
  const std::string flag_server = globals.server;
  const std::string variable_server = variables("BEARING_SERVER");
  const bool by_flag = !globals.context.empty();
  std::string name = by_flag ? globals.context : variables("BEARING_CONTEXT");
  const bool elsewhere = !flag_server.empty() || !variable_server.empty();
  ConnectionContext context;
  if (!name.empty() || !elsewhere) {
    BEARING_ASSIGN_OR_RETURN(ClientConfig config, LoadClientConfig(ClientConfigPath(variables)));
    if (!config.exists && !variables("BEARING_CONFIG").empty()) {
      return absl::InvalidArgumentError(Concat("BEARING_CONFIG: no such file: path=", config.path));
    }
    if (name.empty()) name = config.current;
    if (!name.empty()) {
      const ConnectionContext* found = config.Find(name);
      if (found == nullptr) {
        return absl::InvalidArgumentError(
            Concat(by_flag ? "--context: " : "BEARING_CONTEXT: ", std::string(UnknownContext(config, name).message())));
      }
      context = *found;
    }
  }
  if (globals.server.empty() && by_flag) globals.server = context.server;
  if (globals.server.empty()) globals.server = variable_server;
  if (globals.server.empty()) globals.server = context.server;
  globals.server_given = !globals.server.empty();
  if (globals.server.empty()) globals.server = kDefaultServer;
  // What the environment holds is for the server that it names.
  const bool environment = !by_flag || variable_server.empty() || variable_server == globals.server;
  const bool counts = globals.server == context.server || (by_flag && !flag_server.empty());
  if (counts && by_flag) FillFrom(context.security, globals.security);
  if (environment) globals.security = rpc::WithEnvironment(globals.security);
  if (counts && !by_flag) FillFrom(context.security, globals.security);
  return absl::OkStatus();
}

}  // namespace bearing::cli
