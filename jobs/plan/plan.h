// The plan of a job: layout, memory of a rank, work and time of each stage, and whether it fits. Reads no weights.
#ifndef BEARING_JOBS_PLAN_PLAN_H_
#define BEARING_JOBS_PLAN_PLAN_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/plan/machine.h"
#include "jobs/plan/stage_cost.h"
#include "jobs/plan/workload.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/shard_plan.h"

namespace bearing::jobs {

struct PlanRequest {
  std::string job;              // Name, for the heading.
  std::string dtype;            // Of the compute: "float32" or "bfloat16".
  int64_t ranks = 1;            // In all.
  int64_t tensor_parallel = 1;  // That hold a copy of the model together.
  bool evaluates = true;
  bool edits = true;

  int64_t replicas() const { return ranks / tensor_parallel; }
};

struct PlannedStage {
  StageCost cost;
  double worst_seconds = 0;  // When every candidate reaches every test.
};

// What the job would need with model.residency=streamed: a rank keeps two layers' slices and reads the next while it computes.
struct StreamedPlan {
  int64_t bytes = 0;  // A rank.
  bool fits = false;
  bool by_default = false;  // model.residency=auto takes it here.
  double weight_readings = 0;
  double disk_seconds = 0;  // Reading alone, not from the page cache.
};

struct Plan {
  PlanRequest request;
  std::string family;
  int64_t num_layers = 0;
  int64_t d_model = 0;
  int64_t parameters = 0;
  int64_t checkpoint_bytes = 0;
  std::string stored_dtype;
  sharding::ShardPlan shards;
  WeightMemory weights;        // Largest over the ranks, each field.
  int64_t kv_bytes = 0;        // Largest of a stage, a rank.
  int64_t residual_bytes = 0;  // Likewise.
  int64_t token_budget = 0;
  std::vector<PlannedStage> stages;  // In the order of the job.

  size_t slowest = 0;  // Index into stages.
  size_t fullest = 0;  // The stage with the peak of memory.
  double seconds = 0;  // Of all stages.
  double worst_seconds = 0;
  int64_t peak_bytes = 0;
  int64_t available_bytes = 0;  // A rank.

  // Looked for only when the job does not fit: the fewest ranks like these that hold it; none if no number does.
  std::optional<int64_t> smallest_ranks;
  StreamedPlan streamed;

  bool fits() const { return peak_bytes <= available_bytes; }
};

// FailedPrecondition when the model cannot be cut into so many ranks, or they are no multiple of tensor_parallel.
absl::StatusOr<Plan> MakePlan(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                              const Workload& workload, const Machine& machine, const PlanRequest& request);

// Everything above, the workload and the machine, for programs (docs/formats.md).
nlohmann::json PlanJson(const Plan& plan, const Workload& workload, const Machine& machine);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_PLAN_H_
