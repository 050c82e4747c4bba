#include "worker/search/search_inputs.h"

#include <ATen/ATen.h>
#include <google/protobuf/util/json_util.h>

#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "jobs/job_spec.h"
#include "sharding/status_macros.h"
#include "worker/model/tensor_file.h"
#include "worker/stages/prompt_rows.h"
#include "worker/steer/direction_file.h"

namespace bearing::worker {
namespace {

using nlohmann::json;

absl::StatusOr<json> ReadObject(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(path));
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::DataLossError(absl::StrCat("not a JSON object: file=", path));
  return object;
}

// The manifest of a finished run whose artifacts are whole, and its job file.
absl::StatusOr<json> ReadRun(const SearchOptions& options) {
  const std::set<std::string> needed = {"means.safetensors", "collect.json", "direction.safetensors"};
  BEARING_ASSIGN_OR_RETURN(json manifest, jobs::VerifyManifest(options.run, &needed));
  const std::string job_path = absl::StrCat(options.run, "/.bearing/job.json");
  BEARING_ASSIGN_OR_RETURN(const json job, ReadObject(job_path));
  if (!job.contains("spec")) return absl::DataLossError(absl::StrCat("no job in the file: file=", job_path));
  BEARING_ASSIGN_OR_RETURN(const json collect, ReadObject(absl::StrCat(options.run, "/collect.json")));
  return json{{"spec", job["spec"].is_string() ? job["spec"].get<std::string>() : job["spec"].dump()},
              {"spec_digest", manifest.value("spec_digest", "")},
              {"model_digest", manifest.value("model_digest", "")},
              {"collect", collect}};
}

absl::Status ReadSpec(const std::string& text, const SearchOptions& options, bearing::v1::JobSpec& spec) {
  if (!google::protobuf::util::JsonStringToMessage(text, &spec).ok()) {
    return absl::DataLossError(absl::StrCat("the run's job file does not parse: file=", options.run, "/.bearing/job.json"));
  }
  return absl::OkStatus();
}

absl::Status OpenModel(const SearchOptions& options, SearchInputs& inputs) {
  JobContext& context = inputs.context;
  auto model = storage::ModelSource::Open(context.spec.model().path(), context.spec.model().chat_template());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, model.status()));
  inputs.model = *std::move(model);
  auto reader = inputs.model->OpenCheckpoint();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, reader.status()));
  inputs.reader = *std::move(reader);
  context.reader = inputs.reader.get();
  const int tensor_parallel = options.tensor_parallel > 0 ? options.tensor_parallel : context.comm->size();
  BEARING_ASSIGN_OR_RETURN(context.grid, comm::MakeGrid(*context.comm, tensor_parallel));
  BEARING_ASSIGN_OR_RETURN(context.plan, sharding::MakeShardPlan(context.reader->config(), context.reader->layout(),
                                                                 context.grid.tensor_parallel->size()));
  return context.SetBudgets();
}

steer::Rows Pick(const PromptRows& prompts, const json& kept, std::vector<jobs::Prompt>* texts) {
  steer::Rows rows;
  for (const json& index : kept) {
    const auto i = index.get<size_t>();
    rows.push_back(prompts.rows.at(i));
    if (i < prompts.prompts.size() && texts != nullptr) texts->push_back(prompts.prompts[i]);
  }
  return rows;
}

// `of_run`: the run's own job file.
absl::Status LoadPrompts(const SearchOptions& options, const json& run, const bearing::v1::JobSpec& of_run,
                         SearchInputs& inputs) {
  JobContext& context = inputs.context;
  bearing::v1::Prompts& prompts = *context.spec.mutable_prompts();
  const bool own = !options.positive.empty();
  if (own) {
    prompts.mutable_positive()->mutable_validation()->set_file(options.positive);
    prompts.mutable_negative()->mutable_validation()->set_file(options.negative);
    for (bearing::v1::PromptSide* side : {prompts.mutable_positive(), prompts.mutable_negative()}) {
      side->mutable_validation()->set_count(0);
    }
  } else {
    BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::SpecDigest(of_run));
      if (digest == run.at("spec_digest").get<std::string>()) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat("the prompt files are no longer those of the run: run=", options.run));
    }));
  }
  BEARING_ASSIGN_OR_RETURN(const PromptRows positive, LoadPromptRows(context, prompts.positive().validation()));
  BEARING_ASSIGN_OR_RETURN(const PromptRows negative, LoadPromptRows(context, prompts.negative().validation()));
  if (own) {
    inputs.positive = positive.rows;
    inputs.negative = negative.rows;
    inputs.positive_prompts = positive.prompts;
  } else {
    const json& sets = run.at("collect").at("prompt_sets");
    inputs.positive = Pick(positive, sets.at("positive validation").at("kept"), &inputs.positive_prompts);
    inputs.negative = Pick(negative, sets.at("negative validation").at("kept"), nullptr);
  }
  if (inputs.positive.empty() || inputs.negative.empty()) return absl::InvalidArgumentError("a side has no prompts");
  return absl::OkStatus();
}

absl::Status LoadDirections(const SearchOptions& options, SearchInputs& inputs) {
  JobContext& context = inputs.context;
  const sharding::ModelConfig& config = context.reader->config();
  at::Tensor shared = at::empty({2, config.num_layers(), config.d_model}, at::kDouble);
  BEARING_ASSIGN_OR_RETURN(const json found, context.FromRank0([&]() -> absl::StatusOr<json> {
    BEARING_ASSIGN_OR_RETURN(const steer::Direction direction,
                             steer::ReadDirection(absl::StrCat(options.run, "/direction.safetensors"), config.d_model));
    int layer = 0;
    int position = 0;
    const auto integer = [&](const char* key, int& value) {
      const auto at = direction.metadata.find(key);
      return at != direction.metadata.end() && absl::SimpleAtoi(at->second, &value);
    };
    if (!integer("layer", layer) || !integer("position", position)) {
      return absl::DataLossError("direction.safetensors does not name its layer and position");
    }
    if (options.position.has_value()) position = *options.position;
    const std::string path = absl::StrCat(options.run, "/means.safetensors");
    const std::pair<int, const char*> tensors[] = {{0, "mean_difference"}, {1, "negative_mean"}};
    for (const auto& [slot, name] : tensors) {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor stored, model::ReadTensor(path, name));
      if (stored.dim() != 3 || stored.size(1) != config.num_layers() || stored.size(2) != config.d_model) {
        return absl::DataLossError(absl::StrCat("tensor is of another model: file=", path, " tensor=", name));
      }
      if (position >= 0 || position < -stored.size(0)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--position: the run has no such position: position=", position, " positions=", stored.size(0)));
      }
      shared[slot].copy_(stored[stored.size(0) + position]);
    }
    return json{{"layer", layer}, {"position", position}};
  }));
  BEARING_RETURN_IF_ERROR(context.comm->Broadcast(shared, 0));
  inputs.difference_LD = shared[0];
  inputs.negative_mean_LD = shared[1];
  inputs.layer = found.at("layer").get<int64_t>();
  inputs.position = found.at("position").get<int>();
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadSearchInputs(comm::Communicator& comm, const SearchOptions& options, JobObserver* observer,
                              SearchInputs& inputs) {
  JobContext& context = inputs.context;
  context.comm = &comm;
  context.observer = observer;
  BEARING_ASSIGN_OR_RETURN(const json run, context.FromRank0([&] { return ReadRun(options); }));
  bearing::v1::JobSpec of_run;
  BEARING_RETURN_IF_ERROR(ReadSpec(run.at("spec").get<std::string>(), options, of_run));
  context.spec = of_run;
  if (!options.model.empty()) context.spec.mutable_model()->set_path(options.model);
  if (!options.dtype.empty()) context.spec.mutable_model()->set_dtype(options.dtype);
  BEARING_RETURN_IF_ERROR(OpenModel(options, inputs));
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(context.model_digest, context.reader->Digest());
    if (context.model_digest != run.at("model_digest").get<std::string>()) {
      return absl::FailedPreconditionError(absl::StrCat("the model is not that of the run: model=", context.spec.model().path(),
                                                        " digest=", context.model_digest,
                                                        " run=", run.at("model_digest").get<std::string>()));
    }
    BEARING_ASSIGN_OR_RETURN(context.tokenizer,
                             bridge::ChatTokenizer::Load(inputs.model->folder(), inputs.model->chat_template()));
    return absl::OkStatus();
  }));
  for (const json& token : run.at("collect").at("metric_tokens")) {
    inputs.metric_tokens.push_back(token.at("id").get<int32_t>());
  }
  BEARING_RETURN_IF_ERROR(LoadPrompts(options, run, of_run, inputs));
  return LoadDirections(options, inputs);
}

}  // namespace bearing::worker
