// The client's settings file: named contexts, each a server with whom to trust and who we are (docs/operations.md).
//
// YAML, read through the tree of job files, so that every mistake is told with file, line and field. What a `token` holds is in
// no message (of the kind that the server makes: plain text). Functions are stateless.
#ifndef BEARING_CLI_CLIENT_CONFIG_H_
#define BEARING_CLI_CLIENT_CONFIG_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/client_security.h"

namespace bearing::cli {

struct ConnectionContext {
  std::string name;
  std::string server;  // HOST:PORT
  rpc::ClientSecurity security;
};

struct ClientConfig {
  std::string path;
  bool exists = false;
  std::string current;  // Name of the context that is used when none is named; may be empty.
  std::vector<ConnectionContext> contexts;

  // nullptr if there is none of that name.
  ConnectionContext* Find(std::string_view name);
};

// What a variable of the environment holds, "" when unset.
using Variables = std::function<std::string(const char* name)>;

// BEARING_CONFIG, else $XDG_CONFIG_HOME/bearing/config.yaml, else $HOME/.config/bearing/config.yaml; "" without any of them.
std::string ClientConfigPath(const Variables& variables);

// Of a text; relative paths in it start at `path`'s folder. InvalidArgument with a line "PATH:LINE: FIELD: ..." a mistake.
absl::StatusOr<ClientConfig> ParseClientConfig(std::string_view text, const std::string& path);

// A file that is missing is an empty config. InvalidArgument also when it holds a token and others may read it.
absl::StatusOr<ClientConfig> LoadClientConfig(const std::string& path);

// Replaces the file as a whole, readable by its owner alone; comments in it are lost.
absl::Status SaveClientConfig(const ClientConfig& config);

// InvalidArgument for a name that is not 1 to 63 letters, digits, '.', '_' and '-', and for an address that is not HOST:PORT.
absl::Status CheckContextName(std::string_view name);
absl::Status CheckServerAddress(std::string_view server);

// "no such context" with the nearest name, for `context`.
absl::Status UnknownContext(const ClientConfig& config, std::string_view name);

}  // namespace bearing::cli

#endif  // BEARING_CLI_CLIENT_CONFIG_H_
