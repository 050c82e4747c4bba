// Results of forward passes that jobs of one group share: a stage whose inputs are those of a stage that the group has run for
// another job takes over its files instead of running the model again. Jobs that try other thresholds, judges, costs or edits
// on the same model and prompts run collect once, and those with the same selection run select and evaluate once.
//
// The bytes are those the stage would have written: the key holds the model's digest, the digest of all settings and prompts
// that the stage reads (jobs::StageDigest), and how the work was cut into ranks and batches. Rows of different jobs never meet
// in one batch, as a job's last bits would then depend on what else was queued.
//
// Remembers names and hashes: what is gone, or is no longer what it was, is computed again. Contents only of jobs that write to
// a bucket, whose work folders go when they end, and of those what fits into 128 MiB. Used by rank 0 alone.
#ifndef BEARING_WORKER_SHARED_STAGES_H_
#define BEARING_WORKER_SHARED_STAGES_H_

#include <deque>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "jobs/artifacts.h"
#include "worker/job_context.h"

namespace bearing::worker {

class SharedStages {
 public:
  // The key of a stage of the job; empty for stages that are not shared.
  static absl::StatusOr<std::string> KeyOf(const JobContext& context, bearing::v1::Stage stage);

  // Takes over what another job's stage of that key left, if it is still there. True: the stage is finished.
  absl::StatusOr<bool> Take(const std::string& key, const std::string& stage, jobs::OutputFolder& output) const;

  // A stage that has been run. The oldest are forgotten where there are too many; a stage that wrote more than 1 GiB (a dump of
  // activations) is not remembered, as copying it would take longer than a cancellation may.
  void Add(const std::string& key, const std::string& stage, const JobContext& context);

 private:
  std::deque<std::pair<std::string, jobs::StageRecord>> records_;  // Oldest first.
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SHARED_STAGES_H_
