#include "jobs/judge/judge_check.h"

#include "jobs/judge/judge_prompt.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/concat.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"

namespace bearing::jobs {
namespace {

absl::Status CheckModel(const bearing::v1::JudgeModel& model, int ranks) {
  const auto source = storage::ModelSource::Open(model.path(), model.chat_template());
  if (!source.ok()) return absl::InvalidArgumentError(Concat("model.path: ", source.status().message()));
  const auto reader = (*source)->OpenCheckpoint();
  if (!reader.ok()) return absl::FailedPreconditionError(Concat("model.path: ", reader.status().message()));
  if (ranks > 0) {
    const auto plan = sharding::MakeShardPlan((*reader)->config(), (*reader)->layout(), ranks);
    if (!plan.ok()) return absl::FailedPreconditionError(Concat("model.path: ", plan.status().message()));
  }
  return JudgePrompt::Open(model, **source).status();
}

}  // namespace

absl::Status CheckJudgeModels(const bearing::v1::JobSpec& spec, int ranks, int64_t vocab_size) {
  for (const int id : spec.evaluate().stop_token_ids()) {
    if (id < vocab_size) continue;
    return absl::InvalidArgumentError(
        Concat("evaluate.stop_token_ids: outside the vocabulary: id=", id, " vocab=", vocab_size));
  }
  for (int i = 0; i < spec.judges_size(); ++i) {
    if (spec.judges(i).kind() != "model") continue;
    const absl::Status status = CheckModel(spec.judges(i).model(), ranks);
    if (!status.ok()) return {status.code(), Concat("judges[", i, "].", status.message())};
  }
  return absl::OkStatus();
}

}  // namespace bearing::jobs
