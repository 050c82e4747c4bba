// Copies a finished job's artifacts, trusting nothing but the checksums of its manifest.
#ifndef BEARING_CLI_FETCH_H_
#define BEARING_CLI_FETCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::cli {

// `source` is a folder, or an address in a bucket. Copies the files that SOURCE/manifest.json names and `include` matches
// (shell pattern in which * also matches '/'; empty = all) to `destination`, and last, when every file was taken, the manifest
// itself. Returns the relative paths of what was copied.
//
// NotFound without a manifest; InvalidArgument for a path that leads out of either folder; AlreadyExists when a file is there
// already; DataLoss when a file is missing or is not what the manifest says (it is then not left behind).
absl::StatusOr<std::vector<std::string>> FetchArtifacts(const std::string& source, const std::string& destination,
                                                        const std::string& include);

}  // namespace bearing::cli

#endif  // BEARING_CLI_FETCH_H_
