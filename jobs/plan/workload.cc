#include "jobs/plan/workload.h"

#include <algorithm>
#include <cmath>

#include "jobs/edit_fields.h"
#include "jobs/plan/token_counter.h"
#include "jobs/selection.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

absl::Status CountSide(const TokenCounter& counter, const bearing::v1::PromptSide& source, bool evaluates, WorkloadSide& side) {
  BEARING_ASSIGN_OR_RETURN(side.train, counter.Count(source.train()));
  BEARING_ASSIGN_OR_RETURN(side.validation, counter.Count(source.validation()));
  if (!evaluates) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(side.test, counter.Count(source.test()));
  return absl::OkStatus();
}

// At least one where there is one: a job in which no candidate passes fails.
int64_t Share(double share, int64_t of) {
  return std::min(of, std::max<int64_t>(1, std::llround(share * static_cast<double>(of))));
}

}  // namespace

absl::StatusOr<Workload> MakeWorkload(const bearing::v1::JobSpec& spec, const sharding::ModelConfig& config,
                                      const bridge::ChatTokenizer* tokenizer, const WorkloadOptions& options) {
  Workload workload;
  const TokenCounter counter(spec, tokenizer, options.positions);
  BEARING_ASSIGN_OR_RETURN(workload.positions, counter.Positions());
  const bool evaluates = !spec.evaluate().skip();
  BEARING_RETURN_IF_ERROR(CountSide(counter, spec.prompts().positive(), evaluates, workload.positive));
  BEARING_RETURN_IF_ERROR(CountSide(counter, spec.prompts().negative(), evaluates, workload.negative));
  BEARING_ASSIGN_OR_RETURN(workload.costs, CountCosts(spec, config, counter, workload.positive.test, workload.negative.test));
  BEARING_ASSIGN_OR_RETURN(workload.judges, CountJudges(spec));
  workload.estimated = tokenizer == nullptr;
  workload.how = workload.estimated ? Concat("estimated: a token for every ", kCharactersPerToken, " characters, ",
                                             kTemplateTokens, " for the template in front and ", options.positions,
                                             " behind (no tokenizer in the model folder)")
                                    : "counted with the model's tokenizer and chat template";

  SelectionRule rule;
  rule.prune_layers = spec.select().prune_layers();
  rule.num_layers = config.num_layers();
  const std::vector<int> positions(spec.select().positions().begin(), spec.select().positions().end());
  const std::vector<int> layers(spec.select().layers().begin(), spec.select().layers().end());
  workload.complete = spec.select().complete();
  for (const Candidate& candidate :
       CandidateGrid(static_cast<int>(workload.positions), static_cast<int>(config.num_layers()), positions, layers)) {
    // At the input of layer 0 the template's tokens are the same in all prompts: no difference, no candidate.
    if (candidate.layer == 0 || (!workload.complete && candidate.layer >= rule.first_pruned_layer())) continue;
    workload.layers.push_back(candidate.layer);
  }
  workload.to_kl = workload.complete ? workload.num_candidates() : Share(options.shares.induce, workload.num_candidates());
  workload.to_bypass = workload.complete ? workload.num_candidates() : Share(options.shares.kl, workload.to_kl);
  workload.filter = spec.collect().filter();
  workload.derives_tokens = spec.concept_spec().token_ids().empty() && spec.concept_spec().tokens().empty();
  workload.max_new_tokens = evaluates ? spec.evaluate().max_new_tokens() : 0;
  workload.max_batch = spec.collect().max_batch();
  workload.writes_checkpoint = !spec.edit().skip() && WritesForm(spec.edit(), kCheckpointForm);
  workload.writes_adapter = !spec.edit().skip() && WritesForm(spec.edit(), kLoraForm);
  workload.keep_tied = spec.edit().keep_tied();
  return workload;
}

Workload WorstCase(Workload workload) {
  workload.to_kl = workload.num_candidates();
  workload.to_bypass = workload.num_candidates();
  return workload;
}

}  // namespace bearing::jobs
