// What the stage `costs` will run, as counts of tokens. Mirrors worker/stages/cost_texts.cc and cost_questions.cc.
#ifndef BEARING_JOBS_PLAN_COST_WORK_H_
#define BEARING_JOBS_PLAN_COST_WORK_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "jobs/plan/batches.h"
#include "jobs/plan/token_counter.h"
#include "sharding/model_config.h"

namespace bearing::jobs {

// A row that is scored: tokens that go through the model, and how many of them predict one that is scored.
struct CountedRow {
  int64_t fed = 0;
  int64_t scored = 0;
};

// Rows that compute their first `prefix` tokens once.
struct CountedFamily {
  int64_t prefix = 0;
  std::vector<CountedRow> rows;
};

struct ScoredSet {
  std::vector<CountedFamily> families;
  int64_t kl_tokens = 0;  // Of each row, at which the KL is taken.
};

struct GeneratedSet {
  PromptLengths prompts;
  int64_t max_new_tokens = 0;
};

struct CostWork {
  int64_t interventions = 2;  // The model as it is among them.
  std::vector<ScoredSet> scored;
  std::vector<GeneratedSet> generated;

  bool empty() const { return scored.empty() && generated.empty(); }
};

// One forward pass under one intervention.
struct ScoredBatch {
  Batch batch;
  int64_t kl_reads = 0;
};

// Families in passes of at most `budget` tokens, one that is larger cut, its prefix once in each part.
std::vector<ScoredBatch> CutScored(const ScoredSet& set, int64_t budget);

// `positive`, `negative`: the test prompts, whose completions are taken to run to the last token. Errors of the files.
absl::StatusOr<CostWork> CountCosts(const bearing::v1::JobSpec& spec, const sharding::ModelConfig& config,
                                    const TokenCounter& counter, const PromptLengths& positive, const PromptLengths& negative);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_COST_WORK_H_
