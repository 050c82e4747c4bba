// What a job will run, as counts: tokens of its prompts, candidates, length of completions. No weights, no model needed but
// its tokenizer, and without that an estimate.
#ifndef BEARING_JOBS_PLAN_WORKLOAD_H_
#define BEARING_JOBS_PLAN_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/plan/batches.h"
#include "jobs/plan/cost_work.h"
#include "jobs/plan/judge_work.h"
#include "sharding/model_config.h"

namespace bearing::jobs {

// Shares of candidates that pass a test and go on to the next (cheap tests first). Nobody knows them before; the defaults are
// rounded from the tables that the reference recorded (tests/jobs/data): of gemma-2b-it 0.22 and 0.93, of yi-6b-chat 0.10 and
// 0.50, together 0.13 and 0.71.
struct PassShares {
  double induce = 0.15;
  double kl = 0.7;
};

struct WorkloadSide {
  PromptLengths train, validation, test;
};

struct Workload {
  WorkloadSide positive, negative;
  int64_t positions = 0;        // P, tokens of the template behind the instruction.
  std::vector<int64_t> layers;  // Of the candidates that are scored, one entry a candidate.
  int64_t to_kl = 0;            // Candidates that are expected to reach the KL test,
  int64_t to_bypass = 0;        // and the bypass test.
  bool complete = false;        // All reach all.
  bool filter = true;
  bool derives_tokens = true;
  int64_t max_new_tokens = 0;     // 0 = no evaluation.
  int64_t max_batch = 0;          // Prompts a pass of collect; 0 = no limit.
  bool writes_checkpoint = true;  // Of the edit.
  bool writes_adapter = false;
  bool keep_tied = false;
  CostWork costs;
  std::vector<JudgeWork> judges;  // With models.
  bool estimated = false;         // Tokens are guessed from characters.
  std::string how;                // Where the counts of tokens come from, in words.

  int64_t num_candidates() const { return static_cast<int64_t>(layers.size()); }
};

struct WorkloadOptions {
  PassShares shares;
  int64_t positions = 5;  // Where there is no template to count: ChatML and Llama 3 have 5.
};

// `tokenizer` may be nullptr: then a prompt has a token for every 4 characters (at least one), and a template 20 tokens in
// front, and the system prompt's. Errors are those of prompt files and template.
absl::StatusOr<Workload> MakeWorkload(const bearing::v1::JobSpec& spec, const sharding::ModelConfig& config,
                                      const bridge::ChatTokenizer* tokenizer, const WorkloadOptions& options);

// The same with every candidate reaching every test: what the job costs at worst.
Workload WorstCase(Workload workload);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_WORKLOAD_H_
