#include "jobs/plan/cost_work.h"

#include <algorithm>
#include <limits>
#include <string>

#include "jobs/answer_set.h"
#include "jobs/choice_set.h"
#include "jobs/cost_fields.h"
#include "jobs/prompt_set.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

ScoredSet CompletionSet(const PromptLengths& prompts, const bearing::v1::CostCompletions& wanted, int64_t new_tokens) {
  ScoredSet set;
  set.kl_tokens = wanted.kl_tokens();
  CountedFamily& family = set.families.emplace_back();
  PromptLengths taken = prompts;
  if (wanted.count() > 0) taken.tokens.resize(std::min<size_t>(taken.tokens.size(), wanted.count()));
  family.prefix = taken.Prefix(1);
  for (const int64_t tokens : taken.tokens) family.rows.push_back({tokens + new_tokens - 1, new_tokens});
  return set;
}

absl::StatusOr<ScoredSet> TextSet(const bearing::v1::CostTexts& texts, const sharding::ModelConfig& config,
                                  const TokenCounter& counter) {
  ScoredSet set;
  BEARING_ASSIGN_OR_RETURN(const std::vector<Prompt> items, LoadPrompts(texts.file(), texts.column(), texts.count()));
  const int64_t room = config.max_positions > 0 ? config.max_positions + 1 : std::numeric_limits<int64_t>::max();
  for (const Prompt& item : items) {
    BEARING_ASSIGN_OR_RETURN(const int64_t whole, counter.Plain(item.instruction, /*special=*/true));
    const int64_t tokens = std::min({whole, static_cast<int64_t>(texts.max_tokens()), room});
    if (tokens > 1) set.families.push_back({0, {{tokens - 1, tokens - 1}}});
  }
  return set;
}

absl::StatusOr<ScoredSet> ChoiceTokens(const bearing::v1::CostChoices& choices, const TokenCounter& counter) {
  ScoredSet set;
  BEARING_ASSIGN_OR_RETURN(const std::vector<ChoiceItem> items, LoadChoices(choices.file(), choices.count()));
  for (const ChoiceItem& item : items) {
    int64_t around = 0;  // What the template adds to the question.
    if (choices.chat_template()) {
      BEARING_ASSIGN_OR_RETURN(const PromptLengths asked, counter.Conversations({item.question}));
      BEARING_ASSIGN_OR_RETURN(const int64_t bare, counter.Plain(item.question, /*special=*/false));
      around = asked.tokens[0] - bare;
    }
    CountedFamily& family = set.families.emplace_back();
    for (const std::string& choice : item.choices) {
      const ChoiceText text = JoinChoice(item.question, choices.delimiter(), choice);
      const bool special = !choices.chat_template();
      BEARING_ASSIGN_OR_RETURN(const int64_t context, counter.Plain(text.context, special));
      BEARING_ASSIGN_OR_RETURN(const int64_t whole, counter.Plain(text.context + text.continuation, special));
      // Counted in characters, a short choice may add nothing.
      const int64_t all = std::max(whole, context + 1);
      family.rows.push_back({around + all - 1, all - context});
      family.prefix = std::max<int64_t>(0, around + context - 1);
    }
  }
  return set;
}

absl::StatusOr<GeneratedSet> AnswerSet(const bearing::v1::CostAnswers& answers, const TokenCounter& counter) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<AnswerItem> items, LoadAnswers(answers.file(), answers.count()));
  std::vector<std::string> questions;
  questions.reserve(items.size());
  for (const AnswerItem& item : items) questions.push_back(answers.prefix() + item.question);
  GeneratedSet set;
  set.max_new_tokens = answers.max_new_tokens();
  BEARING_ASSIGN_OR_RETURN(set.prompts, counter.Conversations(questions));
  return set;
}

void AddRow(const CountedRow& row, int64_t prefix, int64_t kl_tokens, ScoredBatch& to) {
  const auto own = static_cast<double>(row.fed - prefix), all = static_cast<double>(row.fed);
  to.batch.tokens += row.fed - prefix;
  to.batch.reads += row.scored;
  to.batch.pairs += own * all;
  to.batch.read_pairs += static_cast<double>(row.scored) * all;
  to.kl_reads += std::min(kl_tokens, row.scored);
}

}  // namespace

std::vector<ScoredBatch> CutScored(const ScoredSet& set, int64_t budget) {
  std::vector<ScoredBatch> batches;
  for (const CountedFamily& family : set.families) {
    int64_t whole = family.prefix;
    for (const CountedRow& row : family.rows) whole += row.fed - family.prefix;
    const auto begin = [&](bool anew) {
      if (anew) batches.emplace_back();
      batches.back().batch.tokens += family.prefix;
      batches.back().batch.pairs += static_cast<double>(family.prefix) * static_cast<double>(family.prefix);
    };
    begin(batches.empty() || batches.back().batch.tokens + whole > budget);
    bool first = true;
    for (const CountedRow& row : family.rows) {
      if (!first && batches.back().batch.tokens + row.fed - family.prefix > budget) begin(true);
      AddRow(row, family.prefix, set.kl_tokens, batches.back());
      first = false;
    }
  }
  return batches;
}

absl::StatusOr<CostWork> CountCosts(const bearing::v1::JobSpec& spec, const sharding::ModelConfig& config,
                                    const TokenCounter& counter, const PromptLengths& positive, const PromptLengths& negative) {
  CostWork work;
  if (!MeasuresCosts(spec)) return work;
  const bearing::v1::Costs& costs = spec.costs();
  work.interventions = costs.addition() ? 3 : 2;
  if (costs.has_completions()) {
    const std::string& side = costs.completions().side();
    const int64_t new_tokens = spec.evaluate().max_new_tokens();
    for (const auto& [name, prompts] : {std::pair("negative", &negative), std::pair("positive", &positive)}) {
      if (side == name || side == "both") work.scored.push_back(CompletionSet(*prompts, costs.completions(), new_tokens));
    }
  }
  for (const bearing::v1::CostTexts& texts : costs.texts()) {
    BEARING_ASSIGN_OR_RETURN(work.scored.emplace_back(), TextSet(texts, config, counter));
  }
  for (const bearing::v1::CostChoices& choices : costs.choices()) {
    BEARING_ASSIGN_OR_RETURN(work.scored.emplace_back(), ChoiceTokens(choices, counter));
  }
  for (const bearing::v1::CostAnswers& answers : costs.answers()) {
    BEARING_ASSIGN_OR_RETURN(work.generated.emplace_back(), AnswerSet(answers, counter));
  }
  return work;
}

}  // namespace bearing::jobs
