#include "jobs/plan/stage_cost.h"

#include <algorithm>
#include <limits>

#include "jobs/plan/stage_tally.h"
#include "sharding/memory_rules.h"

namespace bearing::jobs {
namespace {

constexpr int64_t kProbePrompts = 8;

void AddDisk(double bytes, double bytes_per_s, Work& work) {
  work.disk_bytes += bytes;
  work.disk_seconds += bytes / bytes_per_s;
}

void AddLoad(const StageInputs& in, Work& work) {
  AddDisk(AsReal(in.weights.read), in.machine->disk_read_bytes_per_s, work);
  work.other_seconds += AsReal(in.weights.stored) / in.machine->prepare_bytes_per_s;
}

StageCost Load(const StageInputs& in) {
  StageTally tally(PlanStage::kLoad, in);
  AddLoad(in, tally.cost().work);
  // A judge's model takes the place of the job's, which is loaded again where it is needed behind.
  const bool again = !in.workload->judges.empty() && (!in.workload->costs.empty() || in.workload->writes_checkpoint);
  if (again) AddLoad(in, tally.cost().work);
  tally.cost().memory.scratch = in.weights.loading - in.weights.held;
  return tally.cost();
}

}  // namespace

StageCost CostOfJudge(const JudgeWork& judge, const StageInputs& in, int64_t replicas) {
  StageTally tally(PlanStage::kJudge, in);
  tally.cost().memory.scratch = in.weights.loading - in.weights.held;
  for (int64_t begin = 0; begin < judge.rows.count(); begin += sharding::kJudgeRows) {
    const int64_t end = std::min(judge.rows.count(), begin + sharding::kJudgeRows);
    const PromptLengths part{{judge.rows.tokens.begin() + begin, judge.rows.tokens.begin() + end}, judge.rows.shared};
    tally.Passes(CutBatches(part, 1, in.budget));
  }
  tally.cost().work.ShareOut(replicas);
  AddLoad(in, tally.cost().work);
  return tally.cost();
}

namespace {

// Elements that a rank edits: dealt out by size, and no part is cut further.
double EditedElements(const StageInputs& in) {
  return std::max(AsReal(in.edit.edited) / AsReal(in.ranks), AsReal(in.edit.largest_part / in.types.stored_bytes));
}

bool Unties(const StageInputs& in) { return in.config->tied_embeddings && !in.workload->keep_tied; }

double CheckpointBytes(const StageInputs& in) {
  const double untied = Unties(in) ? AsReal(in.config->vocab_size) * AsReal(in.config->d_model) : 0;
  return (AsReal(in.edit.edited + in.edit.copied) + untied) * AsReal(in.types.stored_bytes);
}

// Of the host's memory: parts in hand, as stored.
int64_t EditMemory(const StageInputs& in) {
  const int64_t threads = sharding::EditThreads(in.machine->threads);
  const auto share = static_cast<int64_t>(CheckpointBytes(in) / AsReal(in.ranks));
  return std::min({threads * std::max(in.edit.largest_part, sharding::kEditPieceBytes), sharding::kEditMemoryBytes, share});
}

StageCost Edit(const StageInputs& in) {
  StageTally tally(PlanStage::kEdit, in);
  Work& work = tally.cost().work;
  if (in.workload->writes_adapter) {
    // One rank reads what writes the residual stream twice: to make the adapter, and to measure what it leaves.
    work.flops += 4 * AsReal(in.edit.edited);
    AddDisk(2 * AsReal(in.edit.edited * in.types.stored_bytes), in.machine->disk_read_bytes_per_s, work);
    work.other_seconds += AsReal(in.edit.edited) / in.machine->edit_elements_per_s;
  }
  if (!in.workload->writes_checkpoint) return tally.cost();
  work.flops += 4 * AsReal(in.edit.edited);
  const double share = CheckpointBytes(in) / AsReal(in.ranks);
  AddDisk(share, in.machine->disk_read_bytes_per_s, work);
  AddDisk(share, in.machine->disk_write_bytes_per_s, work);
  work.other_seconds += EditedElements(in) / in.machine->edit_elements_per_s;
  if (!in.machine->is_gpu) tally.cost().memory.scratch = EditMemory(in);
  return tally.cost();
}

StageCost Verify(const StageInputs& in) {
  StageTally tally(PlanStage::kVerify, in);
  if (!in.workload->writes_checkpoint) return tally.cost();  // The small forms take no time to speak of.
  Work& work = tally.cost().work;
  AddDisk(AsReal(in.edit.edited * in.types.stored_bytes) / AsReal(in.ranks), in.machine->disk_read_bytes_per_s, work);
  work.other_seconds += EditedElements(in) / in.machine->edit_elements_per_s;
  if (!in.machine->is_gpu) tally.cost().memory.scratch = EditMemory(in);
  if (in.config->tied_embeddings && in.workload->keep_tied) return tally.cost();
  PromptLengths probe;
  for (const PromptLengths* set : {&in.workload->positive.validation, &in.workload->negative.validation}) {
    const int64_t n = std::min(kProbePrompts, set->count());
    probe.tokens.insert(probe.tokens.end(), set->tokens.begin(), set->tokens.begin() + n);
    probe.shared = probe.shared == 0 ? set->shared : std::min(probe.shared, set->shared);
  }
  const std::vector<Batch> once = CutBatches(probe, 1, std::numeric_limits<int64_t>::max());
  for (int i = 0; i < 3; ++i) tally.Passes(once);
  AddLoad(in, work);
  // Logits and probabilities of three runs.
  tally.cost().memory.logits = 6 * probe.count() * in.decoder->vocab_rows() * 4;
  tally.cost().memory.scratch = std::max(tally.cost().memory.scratch, in.weights.loading - in.weights.held);
  // A group that can hold both reads the edited model layer by layer, and keeps the other for its next job.
  const int64_t left = in.machine->memory_bytes_per_rank - in.machine->process_bytes - in.weights.held;
  if (sharding::FitsResident(in.streamed_slices, left)) {
    tally.cost().memory.scratch = std::max(tally.cost().memory.scratch, in.streamed_slices);
  }
  return tally.cost();
}

StageCost Checksums(const StageInputs& in) {
  StageTally tally(PlanStage::kChecksums, in);
  if (!in.workload->writes_checkpoint) return tally.cost();
  AddDisk(CheckpointBytes(in), in.machine->disk_read_bytes_per_s, tally.cost().work);
  tally.cost().work.other_seconds += CheckpointBytes(in) / in.machine->hash_bytes_per_s;
  return tally.cost();
}

}  // namespace

const char* PlanStageName(PlanStage stage) {
  switch (stage) {
    case PlanStage::kLoad:
      return "load";
    case PlanStage::kCollect:
      return "collect";
    case PlanStage::kSelect:
      return "select";
    case PlanStage::kEvaluate:
      return "evaluate";
    case PlanStage::kJudge:
      return "judge";
    case PlanStage::kCost:
      return "cost";
    case PlanStage::kEdit:
      return "edit";
    case PlanStage::kVerify:
      return "verify";
    case PlanStage::kChecksums:
      return "checksums";
  }
  return "";
}

int64_t ActivationBytes(const StageInputs& in, int64_t tokens) {
  const int64_t d = in.config->d_model;
  const int64_t e = in.config->layers[0].attention.head_dim;
  const int64_t s = in.types.compute_bytes;
  const int64_t qkv = (in.heads + 2 * in.kv_heads) * e;
  const int64_t f = in.mlp_columns;
  // Inputs and outputs of a widened product exist in fp32 too.
  const int64_t wide = in.types.product_bytes > s ? 4 : 0;
  const int64_t attention = s * (2 * d + qkv + in.heads * e) + wide * (d + qkv);
  const int64_t mlp = s * (3 * d + 3 * f) + wide * (d + 2 * f);
  const int64_t message = in.ranks > 1 ? s * d : 0;
  return tokens * (std::max(attention, mlp) + message);
}

StageCost CostOfStage(PlanStage stage, const StageInputs& inputs) {
  switch (stage) {
    case PlanStage::kLoad:
      return Load(inputs);
    case PlanStage::kCollect:
      return CollectCost(inputs);
    case PlanStage::kSelect:
      return SelectCost(inputs);
    case PlanStage::kEvaluate:
      return EvaluateCost(inputs);
    case PlanStage::kCost:
      return CostsCost(inputs);
    case PlanStage::kEdit:
      return Edit(inputs);
    case PlanStage::kVerify:
      return Verify(inputs);
    case PlanStage::kChecksums:
      return Checksums(inputs);
    case PlanStage::kJudge:
      break;
  }
  return {};
}

}  // namespace bearing::jobs
