#include "worker/stages/edit_spec_of.h"

#include <ATen/ATen.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "jobs/edit_fields.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/lora_adapter.h"
#include "worker/edit/vector_forms.h"

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

std::vector<double> ToVector(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

absl::StatusOr<edit::EditSpec> RemovalOf(const bearing::v1::Edit& fields, int64_t layers, std::vector<double> direction) {
  edit::EditSpec spec;
  spec.directions.push_back(std::move(direction));
  if (fields.has_strength()) spec.strength = fields.strength();
  if (fields.has_embedding_strength()) spec.components[sharding::Component::kEmbedding] = fields.embedding_strength();
  if (fields.has_attention_strength()) spec.components[sharding::Component::kAttention] = fields.attention_strength();
  if (fields.has_mlp_strength()) spec.components[sharding::Component::kMlp] = fields.mlp_strength();
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

JobEdit WithAddition(const bearing::v1::Edit& fields, edit::EditSpec removal, std::vector<double> vector, int64_t layer) {
  JobEdit edit{.checkpoint = removal, .removal = std::move(removal)};
  if (!fields.has_induce()) return edit;
  for (double& value : vector) value *= fields.induce();
  edit.checkpoint.directions.clear();
  edit.checkpoint.addition = edit::Addition{layer, std::move(vector)};
  return edit;
}

absl::Status InField(const char* field, const absl::Status& status) {
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat(field, ": ", status.message()));
}

// Plans from headers and gains alone: no weight is read.
absl::Status PlanForms(const JobContext& context, const JobEdit& edit) {
  const bearing::v1::Edit& fields = context.spec.edit();
  const sharding::WeightFiles& source = context.reader->weights();
  if (jobs::WritesForm(fields, jobs::kCheckpointForm)) {
    BEARING_RETURN_IF_ERROR(
        InField(fields.has_induce() ? "edit.induce" : "edit", edit::MakeEditPlan(source, edit.checkpoint).status()));
  }
  if (jobs::WritesForm(fields, jobs::kLoraForm)) {
    const absl::StatusOr<edit::EditPlan> plan = edit::MakeEditPlan(source, edit.removal);
    BEARING_RETURN_IF_ERROR(InField("edit", plan.status()));
    BEARING_RETURN_IF_ERROR(InField("edit.form", edit::CheckLoraFits(*plan, edit.removal)));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsWholeRemoval(const bearing::v1::Edit& edit) {
  const auto is_one = [](bool given, double strength) { return !given || strength == 1.0; };
  return is_one(edit.has_strength(), edit.strength()) && is_one(edit.has_embedding_strength(), edit.embedding_strength()) &&
         is_one(edit.has_attention_strength(), edit.attention_strength()) &&
         is_one(edit.has_mlp_strength(), edit.mlp_strength()) && edit.layer_strengths().empty() && edit.first_layer() == 0 &&
         !edit.has_last_layer() && !edit.preserve_norms() && !edit.projected() && !edit.has_induce();
}

absl::Status CheckEditFits(JobContext& context) {
  if (context.spec.edit().skip()) return absl::OkStatus();
  return context.OnRank0([&]() -> absl::Status {
    const sharding::ModelConfig& config = context.reader->config();
    // Stands for a direction that is not known yet, at a layer that has another in front of it.
    const std::vector<double> any(static_cast<size_t>(config.d_model), 1.0);
    BEARING_ASSIGN_OR_RETURN(edit::EditSpec removal, RemovalOf(context.spec.edit(), config.num_layers(), any));
    const int64_t layer = std::min<int64_t>(1, config.num_layers() - 1);
    return PlanForms(context, WithAddition(context.spec.edit(), std::move(removal), any, layer));
  });
}

absl::Status CheckChosenLayer(JobContext& context) {
  const bearing::v1::Edit& fields = context.spec.edit();
  if (fields.skip() || !jobs::WritesForm(fields, jobs::kControlVectorForm)) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection chosen, LoadChosenDirection(context));
  return InField("edit.form", edit::CheckControlVectorLayer(chosen.layer, context.reader->config().num_layers()));
}

absl::StatusOr<JobEdit> JobEditOf(JobContext& context, const ChosenDirection& chosen) {
  const bearing::v1::Edit& fields = context.spec.edit();
  std::vector<double> direction = ToVector(chosen.unit);
  if (fields.projected()) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json projected,
                             context.FromRank0([&] { return ProjectedDirection(context, direction); }));
    direction = projected.get<std::vector<double>>();
  }
  BEARING_ASSIGN_OR_RETURN(edit::EditSpec removal,
                           RemovalOf(fields, context.reader->config().num_layers(), std::move(direction)));
  return WithAddition(fields, std::move(removal), ToVector(chosen.mean_difference), chosen.layer);
}

}  // namespace bearing::worker
