// The layout in which the Hugging Face hub's client keeps models: models--ORG--NAME/ with blobs/, refs/main (a revision) and
// snapshots/REVISION/, whose files are links into blobs/. A snapshot is a model folder like any other.
#ifndef BEARING_STORAGE_HUB_CACHE_H_
#define BEARING_STORAGE_HUB_CACHE_H_

#include <string>

#include "absl/status/statusor.h"

namespace bearing::storage {

// The snapshot of `main` when `folder` is such a cache (or its only snapshot, when there is no `main`); otherwise `folder`.
// FailedPrecondition when it cannot be told which snapshot is meant.
absl::StatusOr<std::string> ResolveHubCache(const std::string& folder);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_HUB_CACHE_H_
