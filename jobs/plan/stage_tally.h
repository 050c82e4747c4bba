// One stage being added up: its work, the memory of its passes, the readings of weights that it would need. Private to the
// stages of this folder. `in` must outlive it.
#ifndef BEARING_JOBS_PLAN_STAGE_TALLY_H_
#define BEARING_JOBS_PLAN_STAGE_TALLY_H_

#include <cstdint>
#include <vector>

#include "jobs/plan/stage_cost.h"

namespace bearing::jobs {

class StageTally {
 public:
  StageTally(PlanStage stage, const StageInputs& in);

  // Forward passes with probabilities of the rows that are read, computed `times` times.
  void Passes(const std::vector<Batch>& batches, int times = 1);

  // The work of such passes alone; Took of all that run together follows.
  void Compute(const std::vector<Batch>& batches, int times);

  // The memory and the count of passes that were made together, in one reading of streamed weights.
  void Took(const std::vector<Batch>& batches);
  // The same where so many rows of logits are held at a time.
  void Took(const std::vector<Batch>& batches, int64_t rows);

  void Needs(int64_t activations, int64_t rows);

  StageCost& cost() { return cost_; }

 private:
  const StageInputs& in_;
  StageCost cost_;
};

int64_t LargestTokens(const std::vector<Batch>& batches);
int64_t LargestReads(const std::vector<Batch>& batches);

// The stages that run the model over prompts (forward_stages.cc).
StageCost CollectCost(const StageInputs& in);
StageCost SelectCost(const StageInputs& in);
StageCost EvaluateCost(const StageInputs& in);
StageCost CostsCost(const StageInputs& in);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_STAGE_TALLY_H_
