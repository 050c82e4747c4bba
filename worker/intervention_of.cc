#include "worker/intervention_of.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/edit/edit_plan.h"

namespace bearing::worker {

absl::StatusOr<model::Intervention> RemovalOf(const edit::EditSpec& spec, int64_t num_layers, int64_t d_model) {
  BEARING_RETURN_IF_ERROR(edit::CheckStrengths(spec, num_layers));
  BEARING_ASSIGN_OR_RETURN(const edit::Basis basis, edit::MakeBasis(spec.directions, d_model));
  model::Intervention removal;
  if (basis.count == 0) return removal;
  removal.ablate_basis = at::empty({basis.count, d_model}, at::kFloat);
  std::copy(basis.vectors.begin(), basis.vectors.end(), removal.ablate_basis.data_ptr<float>());
  if (spec.IsWholeRemoval()) return removal;
  removal.strengths = at::empty({1 + 2 * num_layers}, at::kFloat);
  auto* const strengths = removal.strengths.data_ptr<float>();
  const auto set = [&](model::Writer writer, int64_t layer, double strength) {
    strengths[model::WriteSite{writer, layer}.index()] = static_cast<float>(strength);
  };
  set(model::Writer::kEmbedding, 0, spec.StrengthOf(sharding::Component::kEmbedding, -1));
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    set(model::Writer::kAttention, layer, spec.StrengthOf(sharding::Component::kAttention, layer));
    set(model::Writer::kMlp, layer, spec.StrengthOf(sharding::Component::kMlp, layer));
  }
  return removal;
}

}  // namespace bearing::worker
