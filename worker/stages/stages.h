// The stages of a job, in order. Each reads what it needs from the artifacts of the stages before it, so that a job resumes at
// any of them, and returns the files it wrote (relative to the output folder; meaningful on rank 0). All are collective.
#ifndef BEARING_WORKER_STAGES_STAGES_H_
#define BEARING_WORKER_STAGES_STAGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/job_context.h"

namespace bearing::worker {

using StageFiles = std::vector<std::string>;

// Filters prompts by the metric (deriving its tokens if the job names none) and takes mean differences.
// -> collect.json, means.safetensors, geometry.json
absl::StatusOr<StageFiles> RunCollect(JobContext& context);

// Scores candidate directions and selects one. -> candidates.json, direction.safetensors
absl::StatusOr<StageFiles> RunSelect(JobContext& context);

// Completions of the test prompts without and with the direction ablated or added. Recorded as they finish, and gone on with by
// a run that resumes. -> .bearing/evaluate/
absl::StatusOr<StageFiles> RunEvaluate(JobContext& context);

// What the judges of the job say of them. Drops the decoder where a judge has a model of its own. -> completions.jsonl,
// evaluation.json
absl::StatusOr<StageFiles> RunJudge(JobContext& context);
// What the direction's removal costs: cross-entropy, KL, multiple choice, exact match. -> costs.json, costs.jsonl
absl::StatusOr<StageFiles> RunCost(JobContext& context);

// The direction orthogonalized out of the weights. -> checkpoint/
absl::StatusOr<StageFiles> RunEdit(JobContext& context);

// The written checkpoint read back: what is left of the direction, and its logits against the intervention. -> verify.json
absl::StatusOr<StageFiles> RunVerify(JobContext& context);

// -> report.html, report.json. Rank 0 alone works.
absl::StatusOr<StageFiles> RunReport(JobContext& context);

// The result of a finished job, from its artifacts. Rank 0.
absl::StatusOr<bearing::v1::JobResult> ReadResult(const JobContext& context);

// Provenance for the manifest. Rank 0.
absl::StatusOr<nlohmann::json> Provenance(const JobContext& context);

// Parses an artifact of the output folder. DataLoss naming it. Rank 0.
absl::StatusOr<nlohmann::json> ReadJsonArtifact(const JobContext& context, const std::string& name);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_STAGES_H_
