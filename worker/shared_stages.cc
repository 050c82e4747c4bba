#include "worker/shared_stages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "jobs/job_spec.h"
#include "jobs/work_folder.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

constexpr size_t kMostStages = 256;
constexpr int64_t kMostBytesOfStage = int64_t{1} << 30;
constexpr int64_t kMostBytesHeld = int64_t{128} << 20;

}  // namespace

absl::StatusOr<std::string> SharedStages::KeyOf(const JobContext& context, bearing::v1::Stage stage) {
  using bearing::v1::Stage;
  if (stage != Stage::STAGE_COLLECT && stage != Stage::STAGE_SELECT && stage != Stage::STAGE_EVALUATE) return std::string();
  BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::StageDigest(context.spec, stage));
  const int tensor_parallel = context.grid.tensor_parallel->size();
  const bool one_replica = context.comm->size() == tensor_parallel;
  // How many tokens go through a streamed layer together decides which replica has which batch, not what a batch holds.
  return absl::StrCat(digest, " model=", context.model_digest, " ranks=", context.comm->size(),
                      " tensor_parallel=", tensor_parallel, " tokens=", context.token_budget,
                      " streamed=", one_replica ? 0 : context.stream_tokens);
}

absl::StatusOr<bool> SharedStages::Take(const std::string& key, const std::string& stage, jobs::OutputFolder& output) const {
  const auto found = std::find_if(records_.rbegin(), records_.rend(), [&](const auto& record) { return record.first == key; });
  if (key.empty() || found == records_.rend()) return false;
  return output.AdoptStage(stage, found->second);
}

void SharedStages::Add(const std::string& key, const std::string& stage, const JobContext& context) {
  absl::StatusOr<jobs::StageRecord> record = context.output->RecordOf(stage);
  if (key.empty() || !record.ok() || record->bytes() > kMostBytesOfStage) return;
  if (jobs::IsOutputInBucket(context.spec)) {
    if (record->bytes() > kMostBytesHeld) return;
    for (const jobs::StageRecord::File& file : record->files) {
      absl::StatusOr<std::string> content = jobs::ReadFile(context.output->PathOf(file.name));
      if (!content.ok() || jobs::Sha256OfBytes(*content) != file.sha256) return;
      record->contents[file.name] = *std::move(content);
    }
  }
  std::erase_if(records_, [&](const auto& known) { return known.first == key; });
  records_.emplace_back(key, *std::move(record));
  const auto held = [&] {
    int64_t sum = 0;
    for (const auto& [unused, known] : records_) sum += known.contents.empty() ? 0 : known.bytes();
    return sum;
  };
  while (records_.size() > kMostStages || held() > kMostBytesHeld) records_.pop_front();
}

}  // namespace bearing::worker
