// `edit` of a model at a path or address, to a path or address.
#ifndef BEARING_WORKER_EDIT_AT_ADDRESS_H_
#define BEARING_WORKER_EDIT_AT_ADDRESS_H_

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/edit/edit_command.h"
#include "worker/edit/projection.h"
#include "worker/edit/rank_group.h"

namespace bearing::worker {

// Compares the logits of what was written to `staged` with those of `model` under ablation of `basis` (logit_check.h).
using CheckLogitsOf = std::function<absl::StatusOr<nlohmann::json>(const std::string& model, const std::string& staged,
                                                                   const edit::Basis& basis)>;

// RunEditCommand with model, directions and means read where they are. When `options.out` is in a bucket, a checkpoint is
// written straight into it (edit_to_bucket.h), and a smaller form by way of a temporary folder. `check` is for
// `options.check_logits`, and needed with it. Every rank calls it alike.
absl::Status EditAtAddress(const edit::RankGroup& group, edit::EditCommandOptions options, const CheckLogitsOf& check = {});

}  // namespace bearing::worker

#endif  // BEARING_WORKER_EDIT_AT_ADDRESS_H_
