// Multiple choice by log-likelihood, and exact match after generation.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "jobs/answer_set.h"
#include "jobs/choice_set.h"
#include "jobs/cost_statistics.h"
#include "sharding/status_macros.h"
#include "worker/stages/cost_run.h"
#include "worker/stages/prompt_rows.h"
#include "worker/steer/generate.h"

namespace bearing::worker {
namespace {

using nlohmann::json;
using steer::ScoredRow;

// Questions that are generated together.
constexpr int64_t kQuestionWindow = 512;

absl::Status TooLong(const std::string& file, int64_t item, size_t tokens, int64_t room) {
  return absl::InvalidArgumentError(
      absl::StrCat("longer than the model's context: file=", file, " item=", item + 1, " tokens=", tokens, " context=", room));
}

// A row for each choice: the question's tokens, and the choice's scored. Split as lm-evaluation-harness does: the choice is
// what the tokens of both have behind as many as the question has alone.
absl::StatusOr<std::vector<ScoredRow>> ChoiceRows(const JobContext& context, const bearing::v1::CostChoices& set,
                                                  const jobs::ChoiceItem& item, int64_t index) {
  std::string question = item.question;
  if (set.chat_template()) {
    BEARING_ASSIGN_OR_RETURN(question, RenderPrompt(context, question));
  }
  const bool special = !set.chat_template();  // A template writes its own.
  std::vector<ScoredRow> rows;
  for (const std::string& choice : item.choices) {
    const jobs::ChoiceText text = jobs::JoinChoice(question, set.delimiter(), choice);
    ScoredRow row;
    BEARING_ASSIGN_OR_RETURN(row.tokens, context.tokenizer->Encode(text.context, special));
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> whole,
                             context.tokenizer->Encode(text.context + text.continuation, special));
    row.first = static_cast<int64_t>(row.tokens.size());
    if (row.first == 0 || whole.size() <= row.tokens.size()) {
      return absl::InvalidArgumentError(absl::StrCat("no token of the choice is left behind the question's: file=", set.file(),
                                                     " item=", index + 1, " choice=", choice));
    }
    row.tokens.insert(row.tokens.end(), whole.begin() + row.first, whole.end());
    const int64_t room = context.reader->config().max_positions;
    if (row.num_fed() > room) return TooLong(set.file(), index, row.tokens.size(), room);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

Measurement MeasureChoices(CostRun& run, const bearing::v1::CostChoices& set) {
  std::vector<jobs::ChoiceItem> items;
  BEARING_RETURN_IF_ERROR(run.context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(items, jobs::LoadChoices(set.file(), set.count()));
    return absl::OkStatus();
  }));
  const size_t count = run.names.size();
  jobs::PairedRatio accuracy(count), normalized(count), log_likelihood(count);
  int64_t tokens = 0;
  ItemSource source;
  source.count = static_cast<int64_t>(items.size());
  source.unit = "questions";
  source.rows = [&](int64_t item) { return ChoiceRows(run.context, set, items[static_cast<size_t>(item)], item); };
  source.take = [&](int64_t item, const std::vector<RowScores>& rows) {
    const jobs::ChoiceItem& question = items[static_cast<size_t>(item)];
    std::vector<double> is_best(count), is_best_normalized(count), of_answer(count);
    json line = {{"set", set.name()}, {"item", item}, {"answer", question.answer}};
    for (const RowScores& row : rows) tokens += row.tokens;
    for (size_t i = 0; i < count; ++i) {
      std::vector<double> scores;
      for (const RowScores& row : rows) scores.push_back(row.log_likelihoods[i]);
      const size_t best = jobs::BestChoice(scores);
      const size_t best_normalized = jobs::BestNormalizedChoice(scores, question.choices);
      is_best[i] = best == question.answer ? 1 : 0;
      is_best_normalized[i] = best_normalized == question.answer ? 1 : 0;
      of_answer[i] = scores[question.answer];
      line["log_likelihoods"][run.names[i]] = scores;
      line["choice"][run.names[i]] = best;
      line["choice_by_length"][run.names[i]] = best_normalized;
    }
    accuracy.Add(1, is_best);
    normalized.Add(1, is_best_normalized);
    log_likelihood.Add(1, of_answer);
    run.WriteItem(line);
  };
  BEARING_RETURN_IF_ERROR(ScoreItems(run, source, 0));
  if (!run.context.is_rank0()) return json();
  return json{{"kind", "choices"},
              {"set", set.name()},
              {"items", accuracy.items()},
              {"unit", source.unit},
              {"tokens", tokens},
              {"metrics",
               json::array({jobs::RatioMetric("acc", run.names, accuracy), jobs::RatioMetric("acc_norm", run.names, normalized),
                            jobs::RatioMetric("log_likelihood", run.names, log_likelihood)})}};
}

Measurement MeasureAnswers(CostRun& run, const bearing::v1::CostAnswers& set) {
  JobContext& context = run.context;
  std::vector<jobs::AnswerItem> items;
  jobs::AnswerPattern pattern;
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(pattern, jobs::AnswerPattern::Parse(set.pattern()));
    BEARING_ASSIGN_OR_RETURN(items, jobs::LoadAnswers(set.file(), set.count()));
    return absl::OkStatus();
  }));
  const size_t count = run.names.size();
  jobs::PairedRatio matches(count);
  int64_t next = 0;
  for (bool is_last = false; !is_last;) {
    const int64_t first = next;
    BEARING_ASSIGN_OR_RETURN(const json sent, context.FromRank0([&]() -> absl::StatusOr<json> {
      steer::Rows rows;
      for (; next < static_cast<int64_t>(items.size()) && next < first + kQuestionWindow; ++next) {
        BEARING_ASSIGN_OR_RETURN(const std::string text,
                                 RenderPrompt(context, set.prefix() + items[static_cast<size_t>(next)].question));
        BEARING_ASSIGN_OR_RETURN(rows.emplace_back(), context.tokenizer->Encode(text));
        const int64_t room = context.reader->config().max_positions - set.max_new_tokens();
        if (static_cast<int64_t>(rows.back().size()) > room) return TooLong(set.file(), next, rows.back().size(), room);
      }
      return json{{"rows", rows}, {"is_last", next == static_cast<int64_t>(items.size())}};
    }));
    is_last = sent.at("is_last").get<bool>();
    const auto rows = sent.at("rows").get<steer::Rows>();
    std::vector<steer::GenerationTask> tasks;
    for (const model::Intervention& intervention : run.interventions) tasks.push_back({&rows, intervention});
    steer::GenerationOptions options;
    options.max_new_tokens = set.max_new_tokens();
    options.budget = context.token_budget;
    options.progress = [&](double share) {
      const double done = static_cast<double>(first) + share * static_cast<double>(next - first);
      const auto all = static_cast<int64_t>(std::max<size_t>(1, items.size()));
      return context.StepInReplica(bearing::v1::STAGE_COST, done / static_cast<double>(all), all, "questions");
    };
    BEARING_ASSIGN_OR_RETURN(const std::vector<steer::Rows> generated, steer::GenerateRows(run.replicas, tasks, options));
    BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
      for (size_t r = 0; r < rows.size(); ++r) {
        const size_t item = static_cast<size_t>(first) + r;
        const std::string expected = pattern.Expected(items[item].answer);
        json line = {{"set", set.name()}, {"item", item}, {"answer", expected}};
        std::vector<double> is_match(count);
        for (size_t i = 0; i < count; ++i) {
          BEARING_ASSIGN_OR_RETURN(const std::string response, context.tokenizer->Decode(generated[i][r], true));
          const std::string found = pattern.Extract(response);
          is_match[i] = found == expected ? 1 : 0;
          line["response"][run.names[i]] = response;
          line["found"][run.names[i]] = found;
        }
        matches.Add(1, is_match);
        run.WriteItem(line);
      }
      return absl::OkStatus();
    }));
  }
  if (!context.is_rank0()) return json();
  return json{{"kind", "answers"},
              {"set", set.name()},
              {"items", matches.items()},
              {"unit", "questions"},
              {"max_new_tokens", set.max_new_tokens()},
              {"metrics", json::array({jobs::RatioMetric("exact_match", run.names, matches)})}};
}

}  // namespace bearing::worker
