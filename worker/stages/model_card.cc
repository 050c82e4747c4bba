#include "worker/stages/model_card.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "sharding/status_macros.h"
#include "worker/stages/stages.h"
#include "worker/version.h"

namespace bearing::worker {

absl::Status WriteModelCard(const JobContext& context, const std::string& folder,
                            const std::vector<std::string>& edited_tensors) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json candidates, ReadJsonArtifact(context, "candidates.json"));
  const nlohmann::json& chosen = candidates.at("candidates").at(candidates.at("selected").get<size_t>());
  const std::string base = std::filesystem::path(context.spec.model().path()).filename().string();
  const std::string& concept_name = context.spec.concept_spec().name();
  const bool untied = context.reader->config().tied_embeddings && !context.spec.edit().keep_tied();
  const nlohmann::json record = {{"format", "bearing/edit/v1"},
                                 {"bearing_version", kVersion},
                                 {"concept", concept_name},
                                 {"operation", "directional ablation written into the weights: W' = W - r r^T W"},
                                 {"base_model", base},
                                 {"base_model_digest", context.model_digest},
                                 {"direction", chosen},
                                 {"metric_token_ids", candidates.at("metric_token_ids")},
                                 {"relaxations", candidates.at("relaxations")},
                                 {"untied_embeddings", untied},
                                 {"edited_tensors", edited_tensors}};
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(absl::StrCat(folder, "/bearing.json"), record.dump(1) + "\n"));
  const std::string card = absl::StrFormat(
      "---\nbase_model: %s\nbase_model_relation: finetune\nlibrary_name: transformers\npipeline_tag: text-generation\n"
      "tags:\n- bearing\n- directional-ablation\n---\n\n# %s, with the %s direction removed\n\n"
      "The weights of this checkpoint were edited by Bearing %s. Every matrix that writes to the residual stream (%d tensors) "
      "was orthogonalized against one direction, which was read at the input of block %d, token position %d "
      "(Arditi et al. 2024, arXiv 2406.11717).%s\n\n"
      "| measure on validation prompts | value |\n|---|---|\n| metric of positive prompts, ablated (bypass) | %.4f |\n"
      "| metric of negative prompts, added (induce) | %.4f |\n| KL of negative prompts, ablated | %.4f |\n\n"
      "Digest of the base checkpoint: `%s`. The same facts for programs are in `bearing.json`. The licence of the base model "
      "applies.\n\nThis edit changes the model's behaviour on purpose. It is meant for research on interpretability and "
      "safety; "
      "whoever deploys it is responsible for what it says.\n",
      base, base, concept_name, kVersion, edited_tensors.size(), chosen.at("layer").get<int>(),
      chosen.at("position").get<int>(), untied ? " The tied unembedding was kept as it was, as a tensor of its own." : "",
      chosen.at("bypass").get<double>(), chosen.at("induce").get<double>(), chosen.at("kl").get<double>(),
      context.model_digest);
  return jobs::WriteFileAtomically(absl::StrCat(folder, "/README.md"), card);
}

}  // namespace bearing::worker
