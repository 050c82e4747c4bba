#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/logit_check.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

// Prompts a side whose logits are compared.
constexpr size_t kProbePrompts = 8;

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
  BEARING_ASSIGN_OR_RETURN(const LogitProbe ablated, RunLogitProbe(*decoder, rows, direction.Ablation()));
  const model::GemmPath path = decoder->gemm_path();
  const model::Residency residency = decoder->residency();
  context.DropDecoder();  // Two models need not fit at once.

  model::DecoderOptions options;
  options.dtype = ComputeType(context.spec);
  options.gemm_path = path;
  options.residency = residency;
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<model::Decoder> check,
                           model::Decoder::Load(edited, context.plan, *context.grid.tensor_parallel, options));
  BEARING_ASSIGN_OR_RETURN(const LogitProbe written, RunLogitProbe(*check, rows, {}));
  return CompareLogits(*check, *context.comm, written, ablated, baseline);
}

}  // namespace

absl::StatusOr<StageFiles> RunVerify(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context));
  std::string folder = context.is_rank0() ? context.output->PathOf("checkpoint") : "";
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(folder, 0));
  auto edited = sharding::CheckpointReader::Open(folder);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, edited.status()));
  BEARING_RETURN_IF_ERROR(context.Step(bearing::v1::STAGE_VERIFY, 1, 2, "checks"));
  nlohmann::json logits;
  // A model that stays tied has its unembedding changed too: its logits then differ from ablation by design.
  const bool stays_tied = context.reader->config().tied_embeddings && context.spec.edit().keep_tied();
  if (!stays_tied && IsWholeRemoval(context.spec.edit())) {
    BEARING_ASSIGN_OR_RETURN(logits, CheckLogits(context, **edited, direction));
  }
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    // The edit stage read everything back before the folder got its name.
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json record, ReadJsonArtifact(context, "checkpoint/bearing.json"));
    nlohmann::json document = record.at("verification");
    document["logits"] = logits;
    return jobs::WriteFileAtomically(context.output->PathOf("verify.json"), document.dump(1) + "\n");
  }));
  return StageFiles{"verify.json"};
}

}  // namespace bearing::worker
