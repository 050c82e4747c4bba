#include "worker/stages/edit_spec_of.h"

#include <ATen/ATen.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"
#include "worker/stages/chosen_direction.h"

namespace bearing::worker {

namespace {

// The direction without what it shares with the mean of the negative prompts where it was read. Rank 0.
absl::StatusOr<nlohmann::json> ProjectedDirection(const JobContext& context, const std::vector<double>& direction) {
  BEARING_ASSIGN_OR_RETURN(const edit::DirectionInput input,
                           edit::ReadDirectionInput(context.output->PathOf("direction.safetensors")));
  BEARING_ASSIGN_OR_RETURN(
      const std::vector<double> mean,
      edit::ReadNegativeMean(context.output->PathOf("means.safetensors"), input.Integer("layer"), input.Integer("position")));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> rest, edit::WithoutSharedPart(direction, mean));
  return nlohmann::json(rest);
}

}  // namespace

bool IsWholeRemoval(const bearing::v1::Edit& edit) {
  const auto is_one = [](bool given, double strength) { return !given || strength == 1.0; };
  return is_one(edit.has_strength(), edit.strength()) && is_one(edit.has_embedding_strength(), edit.embedding_strength()) &&
         is_one(edit.has_attention_strength(), edit.attention_strength()) &&
         is_one(edit.has_mlp_strength(), edit.mlp_strength()) && edit.layer_strengths().empty() && edit.first_layer() == 0 &&
         !edit.has_last_layer() && !edit.preserve_norms() && !edit.projected();
}

absl::StatusOr<edit::EditSpec> EditSpecOf(JobContext& context) {
  const bearing::v1::Edit& fields = context.spec.edit();
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection chosen, LoadChosenDirection(context));
  edit::EditSpec spec;
  const at::Tensor unit = chosen.unit.to(at::kDouble).contiguous();
  std::vector<double> direction(unit.const_data_ptr<double>(), unit.const_data_ptr<double>() + unit.numel());
  if (fields.projected()) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json projected,
                             context.FromRank0([&] { return ProjectedDirection(context, direction); }));
    direction = projected.get<std::vector<double>>();
  }
  spec.directions.push_back(std::move(direction));
  if (fields.has_strength()) spec.strength = fields.strength();
  if (fields.has_embedding_strength()) spec.components[sharding::Component::kEmbedding] = fields.embedding_strength();
  if (fields.has_attention_strength()) spec.components[sharding::Component::kAttention] = fields.attention_strength();
  if (fields.has_mlp_strength()) spec.components[sharding::Component::kMlp] = fields.mlp_strength();
  const int64_t layers = context.reader->config().num_layers();
  if (!fields.layer_strengths().empty() && fields.layer_strengths_size() != layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("edit.layer_strengths: want one a layer: layers=", layers, " got=", fields.layer_strengths_size()));
  }
  for (int layer = 0; layer < fields.layer_strengths_size(); ++layer) spec.layers[layer] = fields.layer_strengths(layer);
  spec.first_layer = fields.first_layer();
  if (fields.has_last_layer()) spec.last_layer = fields.last_layer();
  spec.preserve_norms = fields.preserve_norms();
  spec.keep_tied = fields.keep_tied();
  spec.projector = fields.projector();
  return spec;
}

}  // namespace bearing::worker
