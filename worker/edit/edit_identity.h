// A name for the bytes that an edit writes: equal for the same edit of the same files by the same version, and for nothing
// else.
#ifndef BEARING_WORKER_EDIT_EDIT_IDENTITY_H_
#define BEARING_WORKER_EDIT_EDIT_IDENTITY_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sharding/weight_files.h"
#include "worker/edit/edit_plan.h"

namespace bearing::edit {

// sha256 over the source's headers and the versions of its files (RandomAccessFile::version), the headers that are written,
// every tensor's edit with its directions, and `salt` (the program's version, and what else a caller must tell apart). For
// resuming only: it differs between machines.
absl::StatusOr<std::string> EditIdentity(const sharding::WeightFiles& source, const EditPlan& plan, std::string_view salt);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_IDENTITY_H_
