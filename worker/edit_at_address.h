// `edit` of a model at a path or address, to a path or address.
#ifndef BEARING_WORKER_EDIT_AT_ADDRESS_H_
#define BEARING_WORKER_EDIT_AT_ADDRESS_H_

#include "absl/status/status.h"
#include "worker/edit/edit_command.h"

namespace bearing::worker {

// RunEditCommand with the model read where it is. When `options.out` is in a bucket, the edit is written to a staging folder of
// this machine (below BEARING_STAGING, else TMPDIR; ranks on several hosts must share it) and published from there; the
// folder's name comes from what is edited and how, so that a rerun after a failed upload only uploads. It is removed when the
// upload is done. Every rank calls it alike.
absl::Status EditAtAddress(const edit::RankGroup& group, edit::EditCommandOptions options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_EDIT_AT_ADDRESS_H_
