// What the stage `judge` will run with a judge's model: its config, and the tokens that it reads. No weights are read.
#ifndef BEARING_JOBS_PLAN_JUDGE_WORK_H_
#define BEARING_JOBS_PLAN_JUDGE_WORK_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "jobs/plan/batches.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"

namespace bearing::jobs {

struct JudgeWork {
  std::string name, dtype;
  sharding::ModelConfig config;
  sharding::ParamLayout layout;
  PromptLengths rows;  // Every completion with what stands around it.
};

// Of each judge with a model. Completions are taken to run to the last token, of which the judge's tokenizer makes as many.
// Errors of the model's folder and of JudgePrompt.
absl::StatusOr<std::vector<JudgeWork>> CountJudges(const bearing::v1::JobSpec& spec);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_JUDGE_WORK_H_
