#include "jobs/cost_fields.h"

#include <filesystem>
#include <set>

#include "jobs/answer_set.h"
#include "jobs/choice_set.h"
#include "jobs/prompt_set.h"
#include "sharding/concat.h"
#include "storage/uri.h"

namespace bearing::jobs {
namespace {

using bearing::v1::Costs;
using bearing::v1::JobSpec;

constexpr int kMaxTextTokens = 1 << 20;
constexpr int kMaxAnswerTokens = 8192;

// Calls use(field, item, holds choices or answers or texts) for the sets of all three kinds.
template <typename Section, typename Use>
void ForEachSet(Section& costs, const Use& use) {
  const auto visit = [&](const char* kind, auto* sets) {
    for (int i = 0; i < sets->size(); ++i) use(Concat("costs.", kind, "[", i, "]"), sets->at(i));
  };
  if constexpr (std::is_const_v<Section>) {
    visit("texts", &costs.texts());
    visit("choices", &costs.choices());
    visit("answers", &costs.answers());
  } else {
    visit("texts", costs.mutable_texts());
    visit("choices", costs.mutable_choices());
    visit("answers", costs.mutable_answers());
  }
}

std::string InQuotes(const std::string& text) { return Concat("\"", text, "\""); }

bool IsJsonLines(const std::string& file) { return std::filesystem::path(file).extension() == ".jsonl"; }

template <typename Set>
constexpr bool kIsTexts = std::is_same_v<std::remove_cv_t<Set>, bearing::v1::CostTexts>;

}  // namespace

std::vector<CostFile> CostFiles(JobSpec& spec) {
  std::vector<CostFile> files;
  if (!spec.has_costs()) return files;
  ForEachSet(*spec.mutable_costs(), [&](const std::string& field, auto& set) {
    files.push_back({field + ".file", set.mutable_file(), set.name(), set.count()});
  });
  return files;
}

bool MeasuresCosts(const JobSpec& spec) { return spec.has_costs() && !spec.costs().skip(); }

void ApplyCostDefaults(JobSpec& spec) {
  if (!spec.has_costs()) return;
  Costs& costs = *spec.mutable_costs();
  if (costs.has_completions()) {
    bearing::v1::CostCompletions& completions = *costs.mutable_completions();
    if (completions.side().empty()) completions.set_side("negative");
    if (!completions.has_kl_tokens()) completions.set_kl_tokens(16);
  }
  ForEachSet(costs, [](const std::string&, auto& set) {
    if (set.name().empty()) set.set_name(std::filesystem::path(set.file()).stem().string());
  });
  for (bearing::v1::CostTexts& texts : *costs.mutable_texts()) {
    if (texts.column().empty()) texts.set_column("text");
    if (!texts.has_max_tokens()) texts.set_max_tokens(1024);
  }
  for (bearing::v1::CostChoices& choices : *costs.mutable_choices()) {
    if (!choices.has_delimiter()) choices.set_delimiter(choices.chat_template() ? "" : " ");
  }
  for (bearing::v1::CostAnswers& answers : *costs.mutable_answers()) {
    if (!answers.has_max_new_tokens()) answers.set_max_new_tokens(256);
  }
}

std::vector<FieldViolation> ValidateCostFields(const JobSpec& spec) {
  std::vector<FieldViolation> out;
  if (!MeasuresCosts(spec)) return out;
  const Costs& costs = spec.costs();
  const auto unless = [&out](bool holds, const std::string& field, std::string_view expected, const std::string& found) {
    if (!holds) out.push_back({field, Concat("expected ", expected, ", found ", found)});
  };
  if (!costs.has_completions() && costs.texts().empty() && costs.choices().empty() && costs.answers().empty()) {
    out.push_back({"costs", "nothing to measure: give completions (may be {}), texts, choices or answers"});
  }
  if (costs.has_completions()) {
    const bearing::v1::CostCompletions& completions = costs.completions();
    const std::string& side = completions.side();
    unless(side.empty() || side == "negative" || side == "positive" || side == "both", "costs.completions.side",
           "one of negative, positive, both", InQuotes(side));
    unless(completions.count() >= 0, "costs.completions.count", "0 (all) or more", Concat(completions.count()));
    const int kl = completions.kl_tokens();
    unless(kl >= 0 && kl <= kMaxAnswerTokens, "costs.completions.kl_tokens", Concat("0 (no KL) to ", kMaxAnswerTokens),
           Concat(kl));
    if (spec.evaluate().skip()) {
      out.push_back(
          {"costs.completions",
           "needs the completions of the evaluate stage, and evaluate.skip is set: set costs.skip too, or leave it out"});
    }
  }
  std::set<std::string> names;
  ForEachSet(costs, [&](const std::string& field, const auto& set) {
    if (set.file().empty()) {
      out.push_back({field + ".file", "missing: give the file"});
      return;
    }
    if (storage::HasScheme(set.file())) {
      const absl::Status parsed = storage::ParseUri(set.file()).status();
      if (!parsed.ok()) out.push_back({field + ".file", std::string(parsed.message())});
    }
    if constexpr (kIsTexts<std::remove_reference_t<decltype(set)>>) {
      unless(IsPromptFormat(set.file()), field + ".file", "a .json, .jsonl, .csv or .txt file", InQuotes(set.file()));
      unless(!set.has_max_tokens() || (set.max_tokens() >= 2 && set.max_tokens() <= kMaxTextTokens), field + ".max_tokens",
             Concat("2 to ", kMaxTextTokens), Concat(set.max_tokens()));
    } else {
      unless(IsJsonLines(set.file()), field + ".file", "a .jsonl file (docs/measure.md says how to make one)",
             InQuotes(set.file()));
    }
    unless(set.count() >= 0, field + ".count", "0 (all) or more", Concat(set.count()));
    const std::string name = set.name().empty() ? std::filesystem::path(set.file()).stem().string() : set.name();
    if (!names.insert(name).second) out.push_back({field + ".name", Concat("given twice: ", name)});
  });
  for (int i = 0; i < costs.answers_size(); ++i) {
    const bearing::v1::CostAnswers& answers = costs.answers(i);
    const std::string field = Concat("costs.answers[", i, "]");
    const int tokens = answers.has_max_new_tokens() ? answers.max_new_tokens() : 1;
    unless(tokens >= 1 && tokens <= kMaxAnswerTokens, field + ".max_new_tokens", Concat("1 to ", kMaxAnswerTokens),
           Concat(tokens));
    if (const absl::Status pattern = AnswerPattern::Parse(answers.pattern()).status(); !pattern.ok()) {
      out.push_back({field + ".pattern", std::string(pattern.message())});
    }
  }
  return out;
}

std::vector<FieldViolation> ValidateCostFiles(const JobSpec& spec) {
  std::vector<FieldViolation> out;
  if (!MeasuresCosts(spec)) return out;
  const auto check = [&out](const std::string& field, const absl::Status& loaded) {
    if (!loaded.ok()) out.push_back({field + ".file", std::string(loaded.message())});
  };
  const Costs& costs = spec.costs();
  for (int i = 0; i < costs.texts_size(); ++i) {
    const bearing::v1::CostTexts& set = costs.texts(i);
    const std::string column = set.column().empty() ? "text" : set.column();
    check(Concat("costs.texts[", i, "]"), LoadPrompts(set.file(), column, set.count()).status());
  }
  for (int i = 0; i < costs.choices_size(); ++i) {
    check(Concat("costs.choices[", i, "]"), LoadChoices(costs.choices(i).file(), costs.choices(i).count()).status());
  }
  for (int i = 0; i < costs.answers_size(); ++i) {
    check(Concat("costs.answers[", i, "]"), LoadAnswers(costs.answers(i).file(), costs.answers(i).count()).status());
  }
  return out;
}

}  // namespace bearing::jobs
