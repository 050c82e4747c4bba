#include "worker/probe_inputs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "jobs/prompt_set.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"
#include "worker/token_rows.h"

namespace bearing::worker {
namespace {

using Direction = jobs::ProbeReport::Direction;

std::string FileName(const std::string& path) { return std::filesystem::path(path).filename().string(); }

std::string Meta(const edit::DirectionInput& input, const std::string& key) {
  const auto found = input.metadata.find(key);
  return found == input.metadata.end() ? "" : found->second;
}

// "refusal, layer 17, position -2", or the file's name.
std::string NameOf(const edit::DirectionInput& input, const std::string& path) {
  const std::string of_concept = Meta(input, "concept");
  if (of_concept.empty() || !input.Integer("layer").has_value()) return FileName(path);
  const std::string position = Meta(input, "position");
  return absl::StrCat(of_concept, ", layer ", Meta(input, "layer"), position.empty() ? "" : ", position ", position);
}

absl::Status ReadDirections(const ProbeOptions& options, int64_t d_model, ProbeInputs& inputs) {
  std::vector<at::Tensor> units;
  std::set<std::string> names;
  for (const std::string& path : options.directions) {
    BEARING_ASSIGN_OR_RETURN(const edit::DirectionInput input, edit::ReadDirectionInput(path));
    for (size_t i = 0; i < input.directions.size(); ++i) {
      const std::vector<double>& stored = input.directions[i];
      if (static_cast<int64_t>(stored.size()) != d_model) {
        return absl::InvalidArgumentError(absl::StrCat("direction of another size: file=", path, " want=", d_model,
                                                       " (the model's d_model) got=", stored.size()));
      }
      const at::Tensor vector = at::tensor(stored, at::kDouble);
      const double norm = at::norm(vector).item<double>();
      if (!std::isfinite(norm) || norm == 0) {
        return absl::InvalidArgumentError(absl::StrCat("the direction is zero or not finite: file=", path, " direction=", i));
      }
      units.push_back((vector / norm).to(at::kFloat));
      Direction direction;
      direction.name = NameOf(input, path);
      if (input.directions.size() > 1) absl::StrAppend(&direction.name, " [", i, "]");
      for (int copy = 2; !names.insert(direction.name).second; ++copy) {
        direction.name = absl::StrCat(NameOf(input, path), " (", copy, ")");
      }
      direction.layer = static_cast<int>(input.Integer("layer").value_or(-1));
      direction.metadata = input.metadata;
      direction.sha256 = input.sha256;
      inputs.directions.push_back(std::move(direction));
    }
  }
  if (units.empty()) return absl::InvalidArgumentError("--direction is needed");
  inputs.basis_KD = at::stack(units);
  return absl::OkStatus();
}

absl::Status CheckRows(const ProbeSet& set, const sharding::ModelConfig& config) {
  for (size_t r = 0; r < set.rows.size(); ++r) {
    const std::vector<int32_t>& row = set.rows[r];
    if (config.max_positions > 0 && static_cast<int64_t>(row.size()) > config.max_positions) {
      return absl::InvalidArgumentError(absl::StrCat("prompt is longer than the model's context: file=", set.label, " prompt=",
                                                     r + 1, " tokens=", row.size(), " context=", config.max_positions));
    }
    const auto outside = std::find_if(row.begin(), row.end(), [&](int32_t id) { return id >= config.vocab_size; });
    if (outside != row.end()) {
      return absl::InvalidArgumentError(absl::StrCat("token id outside the vocabulary: file=", set.label, " row=", r + 1,
                                                     " id=", *outside, " vocab=", config.vocab_size));
    }
  }
  return absl::OkStatus();
}

// The sets by file; with a suffix, the first set's file twice.
absl::Status ReadSets(const ProbeOptions& options, ProbeInputs& inputs) {
  const std::string& first = options.token_ids.empty() ? options.prompts : options.token_ids;
  std::vector<std::pair<std::string, std::string>> files = {{first, ""}};
  if (!options.compare.empty()) files.emplace_back(options.compare, "");
  if (!options.suffix.empty()) files.emplace_back(first, options.suffix);
  for (const auto& [path, suffix] : files) {
    ProbeSet set;
    set.label = FileName(path);
    // Two files of one name are told apart by their folders.
    if (!inputs.sets.empty() && suffix.empty() && set.label == inputs.sets.front().label) absl::StrAppend(&set.label, " (2)");
    if (!suffix.empty()) absl::StrAppend(&set.label, " + suffix");
    set.suffix = suffix;
    if (inputs.tokenizer == nullptr) {
      BEARING_ASSIGN_OR_RETURN(set.rows, ReadTokenIds(path));
      if (options.count > 0 && set.rows.size() > static_cast<size_t>(options.count)) {
        set.rows.resize(static_cast<size_t>(options.count));
      }
    } else {
      BEARING_ASSIGN_OR_RETURN(const auto prompts, jobs::LoadPrompts(path, options.column, options.count));
      BEARING_ASSIGN_OR_RETURN(set.rows, EncodePrompts(*inputs.tokenizer, prompts, suffix));
    }
    inputs.sets.push_back(std::move(set));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ProbeInputs::TextOf(int32_t id) const {
  return tokenizer == nullptr ? absl::StatusOr<std::string>(absl::StrCat(id)) : tokenizer->TokenText(id);
}

absl::StatusOr<ProbeInputs> ReadProbeInputs(const ProbeOptions& options, const storage::ModelSource& source,
                                            const sharding::ModelConfig& config) {
  ProbeInputs inputs;
  BEARING_RETURN_IF_ERROR(ReadDirections(options, config.d_model, inputs));
  if (options.token_ids.empty()) {
    BEARING_ASSIGN_OR_RETURN(inputs.tokenizer, bridge::ChatTokenizer::Load(source.folder()));
  } else if (!options.suffix.empty()) {
    return absl::InvalidArgumentError("--suffix needs --prompts: token ids have no text to put it behind");
  }
  BEARING_RETURN_IF_ERROR(ReadSets(options, inputs));
  for (const ProbeSet& set : inputs.sets) BEARING_RETURN_IF_ERROR(CheckRows(set, config));
  return inputs;
}

}  // namespace bearing::worker
