// An edited checkpoint written straight into a bucket: no copy of it is kept on this machine.
//
// Files are dealt out to the ranks. A file goes, part by part as it is made, into a multipart upload below the attempt's prefix
// (storage/publisher.h), and is hashed and measured on the way; memory is bounded by parts in hand and requests under way. A
// file in which nothing changes is copied inside the store, where the model lies in the same one. When all files are staged,
// rank 0 adds the small ones and the record, and commits. Killed and run again, the same edit keeps staged files whose bytes,
// read back, have their hash.
#ifndef BEARING_WORKER_EDIT_TO_BUCKET_H_
#define BEARING_WORKER_EDIT_TO_BUCKET_H_

#include <optional>

#include "absl/status/statusor.h"
#include "sharding/weight_files.h"
#include "storage/location.h"
#include "storage/publisher.h"
#include "worker/edit/edit_command.h"
#include "worker/edit/rank_group.h"

namespace bearing::worker {

struct BucketTarget {
  storage::Location destination;
  std::optional<storage::Location> model;  // Where the source is, if it is in a bucket.
  storage::PublishOptions options;
};

// Every rank calls it alike. The outcome is complete on rank 0; empty but for the files when an earlier run had come to the
// end. Errors of Publisher and of the edit, agreed.
absl::StatusOr<edit::EditOutcome> EditToBucket(const edit::RankGroup& group, const sharding::WeightFiles& source,
                                               const BucketTarget& target, const edit::CheckpointTask& task);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_EDIT_TO_BUCKET_H_
