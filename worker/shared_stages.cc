#include "worker/shared_stages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "jobs/job_spec.h"
#include "sharding/status_macros.h"

namespace bearing::worker {

absl::StatusOr<std::string> SharedStages::KeyOf(const JobContext& context, bearing::v1::Stage stage) {
  using bearing::v1::Stage;
  if (stage != Stage::STAGE_COLLECT && stage != Stage::STAGE_SELECT && stage != Stage::STAGE_EVALUATE) return std::string();
  BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::StageDigest(context.spec, stage));
  return absl::StrCat(digest, " model=", context.model_digest, " ranks=", context.comm->size(),
                      " tensor_parallel=", context.grid.tensor_parallel->size(), " tokens=", context.token_budget, "/",
                      context.stream_tokens);
}

absl::StatusOr<bool> SharedStages::Take(const std::string& key, const std::string& stage, jobs::OutputFolder& output) const {
  const auto found = std::find_if(records_.rbegin(), records_.rend(), [&](const auto& record) { return record.first == key; });
  if (key.empty() || found == records_.rend()) return false;
  return output.AdoptStage(stage, found->second);
}

void SharedStages::Add(const std::string& key, const std::string& stage, const jobs::OutputFolder& output) {
  absl::StatusOr<jobs::StageRecord> record = output.RecordOf(stage);
  if (key.empty() || !record.ok()) return;
  std::erase_if(records_, [&](const auto& known) { return known.first == key; });
  records_.emplace_back(key, *std::move(record));
  if (records_.size() > kMost) records_.pop_front();
}

}  // namespace bearing::worker
