// `edit` of a model at a path or address, to a path or address.
#ifndef BEARING_WORKER_EDIT_AT_ADDRESS_H_
#define BEARING_WORKER_EDIT_AT_ADDRESS_H_

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/edit/edit_command.h"

namespace bearing::worker {

// RunEditCommand with model, directions and means read where they are. When `options.out` is in a bucket, a checkpoint is
// written straight into it (edit_to_bucket.h), and a smaller form by way of a temporary folder. Every rank calls it alike.
absl::Status EditAtAddress(comm::Communicator& comm, edit::EditCommandOptions options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_EDIT_AT_ADDRESS_H_
