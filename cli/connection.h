// Which server a command talks to, and as whom: flags, environment and the client's contexts put together.
#ifndef BEARING_CLI_CONNECTION_H_
#define BEARING_CLI_CONNECTION_H_

#include "absl/status/status.h"
#include "cli/client_config.h"
#include "cli/command.h"

namespace bearing::cli {

// The environment of this process.
Variables ProcessVariables();

// Fills `globals.server` and `globals.security`, which hold what flags said. A flag wins over the environment, and that over
// the context; a context that a flag names counts as a flag, only less than flags for single values. Without --context or
// BEARING_CONTEXT the config's current context is used, unless flag or environment name a server. Credentials of a context go
// to its own server alone: where another is named, the context counts for nothing, unless both were named by flags.
absl::Status ResolveConnection(const Variables& variables, Globals& globals);

}  // namespace bearing::cli

#endif  // BEARING_CLI_CONNECTION_H_
