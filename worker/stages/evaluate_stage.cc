#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "jobs/report/report.h"
#include "sharding/status_macros.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"
#include "worker/steer/generate.h"

namespace bearing::worker {
namespace {

using bearing::v1::STAGE_EVALUATE;

// The first marker that the response holds, whatever its case; empty if none does.
std::string MatchMarker(const std::string& response, const google::protobuf::RepeatedPtrField<std::string>& markers) {
  const std::string lower = absl::AsciiStrToLower(response);
  for (const std::string& marker : markers) {
    if (absl::StrContains(lower, absl::AsciiStrToLower(marker))) return marker;
  }
  return "";
}

struct Condition {
  const char* side;
  const char* intervention;
  const PromptRows* prompts;
  model::Intervention what;
};

absl::Status WriteCompletions(JobContext& context, const std::vector<Condition>& conditions,
                              const std::vector<steer::Rows>& generated) {
  std::vector<jobs::Completion> completions;
  std::string lines;
  for (size_t c = 0; c < conditions.size(); ++c) {
    for (size_t r = 0; r < generated[c].size(); ++r) {
      const jobs::Prompt& prompt = conditions[c].prompts->prompts[r];
      jobs::Completion completion;
      completion.side = conditions[c].side;
      completion.intervention = conditions[c].intervention;
      completion.category = prompt.category;
      completion.prompt = prompt.instruction;
      BEARING_ASSIGN_OR_RETURN(completion.response, context.tokenizer->Decode(generated[c][r], /*skip_special_tokens=*/true));
      completion.matched_marker = MatchMarker(completion.response, context.spec.concept_spec().markers());
      completion.shows_concept = !completion.matched_marker.empty();
      lines += nlohmann::json{{"side", completion.side},
                              {"intervention", completion.intervention},
                              {"category", completion.category},
                              {"prompt", completion.prompt},
                              {"response", completion.response},
                              {"shows_concept", completion.shows_concept},
                              {"matched_marker", completion.matched_marker}}
                   .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
               "\n";
      completions.push_back(std::move(completion));
    }
  }
  nlohmann::json rates = nlohmann::json::array();
  for (const Condition& condition : conditions) {
    const jobs::Rate rate = jobs::ConceptRate(completions, condition.side, condition.intervention);
    rates.push_back({{"side", condition.side},
                     {"intervention", condition.intervention},
                     {"share", rate.share},
                     {"standard_error", rate.standard_error},
                     {"n", rate.n}});
  }
  const nlohmann::json evaluation = {{"max_new_tokens", context.spec.evaluate().max_new_tokens()},
                                     {"addition_factor", context.spec.evaluate().addition_factor()},
                                     {"rates", rates}};
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(context.output->PathOf("completions.jsonl"), lines));
  return jobs::WriteFileAtomically(context.output->PathOf("evaluation.json"), evaluation.dump(1) + "\n");
}

}  // namespace

absl::StatusOr<StageFiles> RunEvaluate(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(steer::Replicas * replicas, context.GetReplicas());
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context));
  const bearing::v1::Prompts& prompts = context.spec.prompts();
  BEARING_ASSIGN_OR_RETURN(const PromptRows positive, LoadPromptRows(context, prompts.positive().test()));
  BEARING_ASSIGN_OR_RETURN(const PromptRows negative, LoadPromptRows(context, prompts.negative().test()));
  const model::Intervention none;
  const model::Intervention addition = direction.Addition(context.spec.evaluate().addition_factor());
  const std::vector<Condition> conditions = {{"positive", "baseline", &positive, none},
                                             {"positive", "ablation", &positive, direction.Ablation()},
                                             {"negative", "baseline", &negative, none},
                                             {"negative", "ablation", &negative, direction.Ablation()},
                                             {"negative", "addition", &negative, addition}};
  std::vector<steer::GenerationTask> tasks;
  int64_t rows = 0;
  for (const Condition& condition : conditions) {
    tasks.push_back({&condition.prompts->rows, condition.what});
    rows += static_cast<int64_t>(condition.prompts->rows.size());
  }
  steer::GenerationOptions options;
  options.max_new_tokens = context.spec.evaluate().max_new_tokens();
  options.budget = context.token_budget;
  options.progress = [&](double share) {
    return context.StepInReplica(STAGE_EVALUATE, share, rows * options.max_new_tokens, "tokens (at the most)");
  };
  BEARING_ASSIGN_OR_RETURN(const std::vector<steer::Rows> generated, steer::GenerateGreedy(*replicas, tasks, options));
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return WriteCompletions(context, conditions, generated); }));
  return StageFiles{"completions.jsonl", "evaluation.json"};
}

}  // namespace bearing::worker
