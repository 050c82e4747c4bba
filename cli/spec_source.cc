#include "cli/spec_source.h"

#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "jobs/conversation_check.h"
#include "jobs/job_spec.h"
#include "jobs/judge/judge_check.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

void MakeAbsolute(std::string* path) { *path = storage::ResolveAddress(*path, std::filesystem::current_path().string()); }

// Only what is set: touching the rest would make empty messages look given.
void MakePathsAbsolute(bearing::v1::JobSpec& spec) {
  MakeAbsolute(spec.mutable_output());
  if (spec.has_model()) {
    MakeAbsolute(spec.mutable_model()->mutable_path());
    MakeAbsolute(spec.mutable_model()->mutable_chat_template());
  }
  for (bearing::v1::Judge& judge : *spec.mutable_judges()) {
    if (!judge.has_model()) continue;
    MakeAbsolute(judge.mutable_model()->mutable_path());
    MakeAbsolute(judge.mutable_model()->mutable_prompt_file());
    MakeAbsolute(judge.mutable_model()->mutable_chat_template());
  }
  if (!spec.has_prompts()) return;
  bearing::v1::Prompts& prompts = *spec.mutable_prompts();
  const auto side = [](bearing::v1::PromptSide& side) {
    if (side.has_train()) MakeAbsolute(side.mutable_train()->mutable_file());
    if (side.has_validation()) MakeAbsolute(side.mutable_validation()->mutable_file());
    if (side.has_test()) MakeAbsolute(side.mutable_test()->mutable_file());
  };
  if (prompts.has_positive()) side(*prompts.mutable_positive());
  if (prompts.has_negative()) side(*prompts.mutable_negative());
}

absl::StatusOr<bearing::v1::JobSpec> ReadFileOrStdin(const std::string& file) {
  if (file != "-") return jobs::LoadJobFile(file);
  const std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  return jobs::ParseJobFile(text, "standard input");
}

}  // namespace

absl::StatusOr<bearing::v1::JobSpec> LoadSpec(const SpecOptions& options) {
  BEARING_ASSIGN_OR_RETURN(bearing::v1::JobSpec spec, ReadFileOrStdin(options.file));
  for (const std::string& assignment : options.sets) BEARING_RETURN_IF_ERROR(jobs::SetField(spec, assignment));
  if (!options.model.empty()) spec.mutable_model()->set_path(options.model);
  if (!options.output.empty()) spec.set_output(options.output);
  if (options.ranks > 0) spec.set_ranks(options.ranks);
  if (options.tensor_parallel > 0) spec.set_tensor_parallel(options.tensor_parallel);
  MakePathsAbsolute(spec);
  jobs::ApplyDefaults(spec);
  MakePathsAbsolute(spec);
  BEARING_RETURN_IF_ERROR(jobs::ToStatus(jobs::ValidateFields(spec)));
  return spec;
}

absl::Status CheckFiles(const bearing::v1::JobSpec& spec, int ranks) {
  BEARING_RETURN_IF_ERROR(jobs::ToStatus(jobs::ValidateFiles(spec)));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<storage::ModelSource> source,
                           storage::ModelSource::Open(spec.model().path(), spec.model().chat_template()));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<sharding::CheckpointReader> model, source->OpenCheckpoint());
  BEARING_RETURN_IF_ERROR(
      sharding::MakeShardPlan(model->config(), model->layout(), jobs::TensorParallel(spec, std::max(ranks, 1))).status());
  BEARING_RETURN_IF_ERROR(jobs::CheckConversation(spec, *source, model->config().vocab_size));
  return jobs::CheckJudgeModels(spec, jobs::TensorParallel(spec, std::max(ranks, 1)), model->config().vocab_size);
}

}  // namespace bearing::cli
