#include "coordinator/job_checker.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "jobs/conversation_check.h"
#include "jobs/cost_fields.h"
#include "jobs/job_spec.h"
#include "jobs/judge/judge_check.h"
#include "jobs/prompt_fields.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/dtype.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"
#include "storage/uri.h"

namespace bearing::coordinator {
namespace {

using bearing::v1::JobSpec;

// A path that leads nowhere is a wrong job file; anything wrong inside the folder is a model that cannot run.
absl::Status ModelError(const absl::Status& status) {
  const std::string text = absl::StrCat("model.path: ", status.message());
  if (absl::IsNotFound(status)) return absl::InvalidArgumentError(text);
  return absl::FailedPreconditionError(text);
}

// The concept's tokens are the job file's; a tokenizer or template that is missing or broken is the model's.
absl::Status ConversationError(const absl::Status& status) {
  return status.ok() || absl::StartsWith(status.message(), "concept.") ? status : ModelError(status);
}

// Clients resolve paths; a relative one would be read against the folder the coordinator happened to start in. Addresses
// ("s3://...") are whole by themselves.
std::vector<jobs::FieldViolation> RelativePaths(const JobSpec& spec) {
  std::vector<jobs::FieldViolation> violations;
  const auto check = [&](std::string field, const std::string& path) {
    if (path.empty() || path.front() == '/' || storage::HasScheme(path)) return;
    violations.push_back({std::move(field), absl::StrCat("must be an absolute path, found \"", path, "\"")});
  };
  check("model.path", spec.model().path());
  check("model.chat_template", spec.model().chat_template());
  for (const jobs::PromptField& field : jobs::PromptFields()) {
    const bearing::v1::PromptSource* source = jobs::FindSource(spec, field);
    if (source != nullptr) check(field.Path() + ".file", source->file());
  }
  JobSpec copy = spec;
  for (const jobs::CostFile& cost : jobs::CostFiles(copy)) check(cost.field, *cost.file);
  check("output", spec.output());
  for (int i = 0; i < spec.judges_size(); ++i) {
    const bearing::v1::JudgeModel& model = spec.judges(i).model();
    const std::string group = absl::StrCat("judges[", i, "].model.");
    check(group + "path", model.path());
    check(group + "prompt_file", model.prompt_file());
    check(group + "chat_template", model.chat_template());
  }
  return violations;
}

struct OpenedModel {
  std::unique_ptr<storage::ModelSource> source;
  std::unique_ptr<sharding::CheckpointReader> reader;
};

absl::StatusOr<OpenedModel> OpenModel(const JobSpec& spec) {
  auto source = storage::ModelSource::Open(spec.model().path(), spec.model().chat_template());
  if (!source.ok()) return ModelError(source.status());
  auto reader = (*source)->OpenCheckpoint();
  if (!reader.ok()) return ModelError(reader.status());
  return OpenedModel{*std::move(source), *std::move(reader)};
}

void CopyRange(const sharding::Range& from, bearing::v1::Range* to) {
  to->set_begin(from.begin);
  to->set_end(from.end);
}

bearing::v1::ShardPlan ToProto(const sharding::ShardPlan& plan) {
  bearing::v1::ShardPlan proto;
  for (const sharding::RankPlan& rank : plan.ranks) {
    bearing::v1::RankPlan* out = proto.add_ranks();
    CopyRange(rank.heads, out->mutable_heads());
    CopyRange(rank.kv_heads, out->mutable_kv_heads());
    CopyRange(rank.mlp, out->mutable_mlp());
    CopyRange(rank.expert, out->mutable_expert());
    CopyRange(rank.shared_expert, out->mutable_shared_expert());
    CopyRange(rank.vocab, out->mutable_vocab());
    out->set_weight_bytes(rank.weight_bytes);
  }
  return proto;
}

absl::StatusOr<sharding::ShardPlan> PlanModel(const sharding::CheckpointReader& reader, int ranks) {
  auto plan = sharding::MakeShardPlan(reader.config(), reader.layout(), ranks);
  if (!plan.ok()) return absl::FailedPreconditionError(absl::StrCat("ranks: ", plan.status().message()));
  return plan;
}

class FileJobChecker final : public JobChecker {
 public:
  absl::Status Check(JobSpec* spec, absl::FunctionRef<absl::Status()> proceed) const override {
    jobs::ApplyDefaults(*spec);
    std::vector<jobs::FieldViolation> violations = jobs::ValidateFields(*spec);
    for (jobs::FieldViolation& violation : RelativePaths(*spec)) violations.push_back(std::move(violation));
    BEARING_RETURN_IF_ERROR(jobs::ToStatus(violations));
    BEARING_RETURN_IF_ERROR(proceed());
    BEARING_RETURN_IF_ERROR(jobs::ToStatus(jobs::ValidateFiles(*spec)));
    BEARING_RETURN_IF_ERROR(proceed());
    BEARING_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(*spec));
    if (spec->ranks() != 0)
      BEARING_RETURN_IF_ERROR(PlanModel(*model.reader, jobs::TensorParallel(*spec, spec->ranks())).status());
    BEARING_RETURN_IF_ERROR(proceed());
    BEARING_RETURN_IF_ERROR(
        ConversationError(jobs::CheckConversation(*spec, *model.source, model.reader->config().vocab_size)));
    BEARING_RETURN_IF_ERROR(proceed());
    const int ranks = jobs::TensorParallel(*spec, spec->ranks());
    BEARING_RETURN_IF_ERROR(jobs::CheckJudgeModels(*spec, ranks, model.reader->config().vocab_size));
    return proceed();
  }

  absl::StatusOr<ModelPlan> Plan(const JobSpec& spec, int ranks) const override {
    BEARING_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(spec));
    BEARING_ASSIGN_OR_RETURN(sharding::ShardPlan plan, PlanModel(*model.reader, ranks));
    const int64_t compute_size =
        sharding::DTypeSize(spec.model().dtype() == "bfloat16" ? sharding::DType::kBF16 : sharding::DType::kF32);
    ModelPlan result;
    result.plan = ToProto(plan);
    const bool may_stream = spec.model().residency() != "resident";
    for (const sharding::RankPlan& rank : plan.ranks) {
      const sharding::RankElements elements = sharding::CountElements(model.reader->layout(), rank);
      result.compute_bytes.push_back((may_stream ? elements.streamed : elements.resident) * compute_size);
    }
    return result;
  }
};

}  // namespace

std::unique_ptr<JobChecker> MakeFileJobChecker() { return std::make_unique<FileJobChecker>(); }

}  // namespace bearing::coordinator
