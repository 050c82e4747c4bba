// What each stage of a job costs: work, memory of a rank, and what it would be with streamed weights. Pure functions of counts.
//
// Letters as in decoder_cost.h, and P positions, C candidates, n prompts of a set, M new tokens, r rows that decode together.
//
//   load       reads a rank's slices, converts them
//   collect    one pass over both training sets, probabilities of n rows (when the concept's tokens are derived, twice of the
//              first kTokenPrompts a side, whose residuals, 4 L P D bytes each, shared out over the ranks, wait for them); with
//              the filter one over the validation sets; the sums of each side meet in one all-reduce of 8 L P D bytes
//   select     one pass over both validation sets; induce: a pass over the negative ones and, for each of the C candidates,
//              the blocks above its layer; KL: a pass over the negative ones for each candidate that induces; bypass: one over
//              the positive ones for each candidate that is close
//   evaluate   five sets (positive twice, negative three times): a pass over the prompts, then M - 1 steps of r rows. At most:
//              rows that end early leave
//   judge      of each judge's model: reads and converts it, one pass over all completions (five sets, as in evaluate),
//              kJudgeRows at a time. Completions run to the last token, of which the judge's tokenizer makes as many
//   cost       for each set and intervention (2 or 3, in one batch): a pass over its rows, logits and probabilities of all
//              tokens that are scored, KL of the first kl_tokens of a row; answers are generated as in evaluate
//   edit       reads and writes the checkpoint once; 4 FLOPs an edited element in fp64. A LoRA adapter: one rank reads the
//              edited tensors twice. The other forms cost nothing
//   verify     of a checkpoint: reads the edited tensors, loads the edited model, three passes over 8 prompts a side
//   checksums  sha256 of the checkpoint, on rank 0
// Not counted: start of the programs, rendering and tokenizing, the report, and memory that the allocator keeps.
#ifndef BEARING_JOBS_PLAN_STAGE_COST_H_
#define BEARING_JOBS_PLAN_STAGE_COST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "jobs/plan/decoder_cost.h"
#include "jobs/plan/machine.h"
#include "jobs/plan/weight_memory.h"
#include "jobs/plan/workload.h"
#include "sharding/model_config.h"

namespace bearing::jobs {

enum class PlanStage { kLoad, kCollect, kSelect, kEvaluate, kJudge, kCost, kEdit, kVerify, kChecksums };
const char* PlanStageName(PlanStage stage);

// Bytes of the rank that holds most.
struct StageMemory {
  int64_t weights = 0;
  int64_t process = 0;      // Libraries, tokenizer, buffers of the group.
  int64_t activations = 0;  // Of the largest pass.
  int64_t logits = 0;       // fp32 rows of the vocabulary, kept ones included.
  int64_t residuals = 0;    // Captured, their sums, mean differences and directions.
  int64_t kv = 0;
  int64_t scratch = 0;  // Of loading and editing.

  int64_t total() const { return weights + process + activations + logits + residuals + kv + scratch; }
};

struct StageCost {
  PlanStage stage = PlanStage::kLoad;
  Work work;
  int64_t passes = 0;  // Forward passes and decode steps.
  StageMemory memory;
  // Readings of all weights with streamed residency: once a step in which all prompts go through the layers together, if their
  // residual streams fit.
  double weight_readings = 0;
  int64_t waiting_bytes = 0;  // Of the residual streams that wait between layers then.
};

struct StageInputs {
  const sharding::ModelConfig* config = nullptr;
  const Workload* workload = nullptr;
  const Machine* machine = nullptr;
  const DecoderCost* decoder = nullptr;
  HoldingTypes types;
  WeightMemory weights;         // Largest over the ranks, each field.
  int64_t streamed_slices = 0;  // What streamed residency holds of them: the ends, two layers, a block that is widened.
  EditSize edit;
  int64_t ranks = 1;
  int64_t kv_heads = 1;  // Largest of a rank; so the next two.
  int64_t heads = 1;
  int64_t mlp_columns = 1;  // Dense, or of one expert and the shared one.
  int64_t budget = 4096;    // Tokens a pass.
};

// Of every stage but judge.
StageCost CostOfStage(PlanStage stage, const StageInputs& inputs);

// Of one judge; `inputs` are those of its model, of which every replica loads a copy. The completions are shared out.
StageCost CostOfJudge(const JudgeWork& judge, const StageInputs& inputs, int64_t replicas);

// Of a pass of T tokens.
int64_t ActivationBytes(const StageInputs& inputs, int64_t tokens);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_STAGE_COST_H_
