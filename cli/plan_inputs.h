// What `bearing plan` reads before it plans: the model without its weights, the job's counts, the rates of the machine.
#ifndef BEARING_CLI_PLAN_INPUTS_H_
#define BEARING_CLI_PLAN_INPUTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "cli/spec_source.h"
#include "jobs/plan/machine.h"
#include "jobs/plan/workload.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "storage/model_source.h"

namespace bearing::cli {

struct PlanOptions {
  SpecOptions spec;
  std::vector<int64_t> ranks;
  int64_t tensor_parallel = 0;  // 0 = as the job file, there 0 = all ranks.
  std::string model_config;
  std::string stored_dtype;  // Of weights that are not there; empty = what config.json says.
  std::string machine;
  std::string save_machine;
  std::string gpu;
  double efficiency = 0.5;
  // Sizes as text, empty = the machine's own.
  std::string memory;
  std::string network;
  std::string disk;
  int64_t ranks_per_node = 0;
  int threads = 0;
  jobs::WorkloadOptions workload;
};

// A model without its weights.
struct PlannedModel {
  std::shared_ptr<storage::ModelSource> source;  // Keeps `folder`.
  std::string config_path;                       // File or folder.
  std::string folder;                            // On this machine.
  sharding::ModelConfig config;
  sharding::ParamLayout layout;
};

// Of a folder with weights, their headers are checked too, as a run would. Errors name the file.
absl::StatusOr<PlannedModel> OpenModel(const PlanOptions& options, const bearing::v1::JobSpec& spec);

absl::StatusOr<jobs::Workload> CountWork(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                         const PlannedModel& model);

// Measured, read or by name, with the flags' values on top; saved where the flags say so.
absl::StatusOr<jobs::Machine> FindMachine(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                          const PlannedModel& model, const jobs::Workload& workload);

}  // namespace bearing::cli

#endif  // BEARING_CLI_PLAN_INPUTS_H_
