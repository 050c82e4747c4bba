// A finished folder that all ranks see, put into a bucket by all of them.
#ifndef BEARING_WORKER_PUBLISH_TOGETHER_H_
#define BEARING_WORKER_PUBLISH_TOGETHER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/location.h"
#include "storage/publisher.h"
#include "worker/edit/rank_group.h"

namespace bearing::worker {

// Bytes staged and in all, of this rank; a bad status stops all ranks. May be called on another thread, one at a time.
using PublishProgress = std::function<absl::Status(int64_t, int64_t)>;

// Puts the files that FOLDER/manifest.json names, and that manifest, at `destination` (storage/publisher.h: all or nothing, may
// be called again after any failure, keeps what is staged already). Ranks stage different files. Every rank calls it alike.
// Errors of Publisher, agreed.
absl::Status PublishTogether(const edit::RankGroup& group, const std::string& folder, const storage::Location& destination,
                             const storage::PublishOptions& options, const PublishProgress& progress);

// Removes what runs of the same folder have staged and not committed. By one rank, when no other is at work.
absl::Status DiscardStaged(const std::string& folder, const storage::Location& destination);

// Publisher::Begin by rank 0, for all: true on every rank when an earlier run has finished.
absl::StatusOr<bool> BeginTogether(const edit::RankGroup& group, storage::Publisher& publisher);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_PUBLISH_TOGETHER_H_
