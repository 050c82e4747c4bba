#include "worker/stages/model_card.h"

#include <filesystem>

#include "absl/strings/str_format.h"
#include "sharding/status_macros.h"
#include "worker/stages/stages.h"
#include "worker/version.h"

namespace bearing::worker {

absl::StatusOr<edit::RecordInputs> RecordOfJob(const JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json candidates, ReadJsonArtifact(context, "candidates.json"));
  const nlohmann::json& chosen = candidates.at("candidates").at(candidates.at("selected").get<size_t>());
  edit::RecordInputs inputs;
  inputs.version = kVersion;
  inputs.concept_name = context.spec.concept_spec().name();
  inputs.base_model = std::filesystem::path(context.spec.model().path()).filename().string();
  inputs.base_model_digest = context.model_digest;
  inputs.direction = chosen;
  inputs.more = {{"metric_token_ids", candidates.at("metric_token_ids")},
                 {"relaxations", candidates.at("relaxations")},
                 {"projected", context.spec.edit().projected()}};
  inputs.card_text = absl::StrFormat(
      "The direction was read at the input of block %d, token position %d (Arditi et al. 2024, arXiv 2406.11717).\n\n"
      "| measure on validation prompts | value |\n|---|---|\n| metric of positive prompts, ablated (bypass) | %.4f |\n"
      "| metric of negative prompts, added (induce) | %.4f |\n| KL of negative prompts, ablated | %.4f |\n\n",
      chosen.at("layer").get<int>(), chosen.at("position").get<int>(), chosen.at("bypass").get<double>(),
      chosen.at("induce").get<double>(), chosen.at("kl").get<double>());
  return inputs;
}

}  // namespace bearing::worker
