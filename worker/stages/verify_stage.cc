#include <ATen/ATen.h>

#include <algorithm>

#include "jobs/edit_fields.h"
#include "sharding/status_macros.h"
#include "worker/logit_check.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/small_forms.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

// Prompts a side whose logits are compared.
constexpr size_t kProbePrompts = 8;

// What the edited model must do without intervention.
model::Intervention InterventionOf(const bearing::v1::Edit& edit, const ChosenDirection& direction) {
  return edit.has_induce() ? direction.Addition(edit.induce()) : direction.Ablation();
}

absl::StatusOr<nlohmann::json> CheckLogits(JobContext& context, const sharding::CheckpointReader& edited,
                                           const ChosenDirection& direction) {
  steer::Rows rows;
  for (const auto* side : {&context.spec.prompts().positive(), &context.spec.prompts().negative()}) {
    BEARING_ASSIGN_OR_RETURN(const PromptRows prompts, LoadPromptRows(context, side->validation()));
    const size_t n = std::min(kProbePrompts, prompts.rows.size());
    rows.insert(rows.end(), prompts.rows.begin(), prompts.rows.begin() + static_cast<std::ptrdiff_t>(n));
  }
  BEARING_ASSIGN_OR_RETURN(model::Decoder * decoder, context.GetDecoder());
  BEARING_ASSIGN_OR_RETURN(const LogitProbe baseline, RunLogitProbe(*decoder, rows, {}));
  BEARING_ASSIGN_OR_RETURN(const LogitProbe steered,
                           RunLogitProbe(*decoder, rows, InterventionOf(context.spec.edit(), direction)));
  model::DecoderOptions options;
  options.dtype = ComputeType(context.spec);
  options.gemm_path = decoder->gemm_path();
  options.residency = decoder->residency();
  bool stays = context.may_keep_model && options.residency == model::Residency::kResident;
  if (stays) {
    BEARING_ASSIGN_OR_RETURN(stays, context.HasRoomToStream(edited, options.dtype));
  }
  if (stays) {
    options.residency = model::Residency::kStreamed;  // One pass: a layer at a time costs no more reading.
  } else {
    context.DropDecoder();  // Two models need not fit at once.
  }
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<model::Decoder> check,
                           model::Decoder::Load(edited, context.plan, *context.grid.tensor_parallel, options));
  BEARING_ASSIGN_OR_RETURN(const LogitProbe written, RunLogitProbe(*check, rows, {}));
  return CompareLogits(*check, *context.comm, written, steered, baseline);
}

// null where the edited model is not that of an intervention: a part of the edit, or an output that changes too because it
// stays tied to an edited embedding.
absl::StatusOr<nlohmann::json> CheckCheckpoint(JobContext& context, const ChosenDirection& direction) {
  std::string folder = context.is_rank0() ? context.output->PathOf("checkpoint") : "";
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(folder, 0));
  auto edited = sharding::CheckpointReader::Open(folder);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, edited.status()));
  const bearing::v1::Edit& edit = context.spec.edit();
  const bool edits_embedding = !edit.has_induce() || direction.layer == 0;
  if (context.reader->config().tied_embeddings && edit.keep_tied() && edits_embedding) return nlohmann::json();
  if (!edit.has_induce() && !IsWholeRemoval(edit)) return nlohmann::json();
  return CheckLogits(context, **edited, direction);
}

}  // namespace

absl::StatusOr<StageFiles> RunVerify(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context));
  BEARING_ASSIGN_OR_RETURN(const JobEdit edit, JobEditOf(context, direction));
  BEARING_RETURN_IF_ERROR(context.Step(bearing::v1::STAGE_VERIFY, 1, 2, "checks"));
  const bool has_checkpoint = jobs::WritesForm(context.spec.edit(), jobs::kCheckpointForm);
  nlohmann::json logits;
  if (has_checkpoint) {
    BEARING_ASSIGN_OR_RETURN(logits, CheckCheckpoint(context, direction));
  }
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    nlohmann::json document = nlohmann::json::object();
    if (has_checkpoint) {
      // The edit stage read everything back before the folder got its name.
      BEARING_ASSIGN_OR_RETURN(const nlohmann::json record, ReadJsonArtifact(context, "checkpoint/bearing.json"));
      document = record.at("verification");
    }
    document["logits"] = logits;
    BEARING_ASSIGN_OR_RETURN(document["forms"], VerifySmallForms(context, edit, direction));
    return jobs::WriteFileAtomically(context.output->PathOf("verify.json"), document.dump(1) + "\n");
  }));
  return StageFiles{"verify.json"};
}

}  // namespace bearing::worker
