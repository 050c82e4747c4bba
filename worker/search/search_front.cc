#include "worker/search/search_front.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "jobs/judge/substring_judge.h"
#include "sharding/status_macros.h"
#include "worker/intervention_of.h"
#include "worker/steer/generate.h"

namespace bearing::worker {
namespace {

using nlohmann::json;

// Added to a KL before its logarithm: below it, differences are noise.
constexpr double kSmallestKl = 1e-3;

json ScoreJson(const std::optional<steer::TrialScore>& score) {
  if (!score.has_value()) return nullptr;
  return {{"probability", score->probability},
          {"metric", score->metric},
          {"kl", score->kl},
          {"positives", score->positives},
          {"negatives", score->negatives}};
}

std::optional<steer::TrialScore> ScoreOf(const json& object) {
  if (!object.is_object()) return std::nullopt;
  // A number that is not finite is written as null.
  const auto number = [&](const char* key) { return object.at(key).is_number() ? object.at(key).get<double>() : NAN; };
  return steer::TrialScore{number("probability"), number("metric"), number("kl"), object.at("positives").get<int64_t>(),
                           object.at("negatives").get<int64_t>()};
}

absl::StatusOr<json> CompletionsJson(const SearchInputs& inputs, int64_t trial, const steer::Rows& answers) {
  json list = json::array();
  int64_t shown = 0;
  const jobs::SubstringJudge judge(inputs.context.spec.concept_spec().markers());
  for (size_t r = 0; r < answers.size(); ++r) {
    BEARING_ASSIGN_OR_RETURN(const std::string text,
                             inputs.context.tokenizer->Decode(answers[r], /*skip_special_tokens=*/true));
    const std::string& marker = judge.Match(text);
    shown += marker.empty() ? 0 : 1;
    list.push_back({{"prompt", inputs.positive_prompts[r].instruction}, {"response", text}, {"matched_marker", marker}});
  }
  return json{{"completions_of", trial}, {"shown", shown}, {"answers", answers.size()}, {"completions", list}};
}

}  // namespace

json TrialJson(int64_t number, const Trial& trial) {
  return {{"trial", number},
          {"generation", trial.generation},
          {"point", trial.point},
          {"screen", ScoreJson(trial.screen)},
          {"score", ScoreJson(trial.score)}};
}

absl::StatusOr<Trial> TrialOf(const json& line) {
  try {
    return Trial{line.at("generation").get<int64_t>(), line.at("point").get<steer::Point>(), ScoreOf(line.at("screen")),
                 ScoreOf(line.at("score"))};
  } catch (const json::exception& error) {
    return absl::DataLossError(absl::StrCat("not a trial: ", error.what(), " line=", line.dump()));
  }
}

std::optional<steer::Objectives> ObjectivesOf(const std::optional<steer::TrialScore>& score) {
  if (!score.has_value() || !std::isfinite(score->probability) || !std::isfinite(score->kl)) return std::nullopt;
  return steer::Objectives{score->probability, std::log(std::max(score->kl, 0.0) + kSmallestKl)};
}

steer::Objectives ReferenceOf(const steer::TrialScore& baseline, double kl_cap) {
  return {baseline.probability, std::log(kl_cap + kSmallestKl)};
}

double SearchPoint::standard_error() const {
  return answers > 0 ? std::sqrt(share() * (1 - share()) / static_cast<double>(answers)) : 0;
}

std::vector<int64_t> ChoosePoints(const std::vector<Trial>& trials, int64_t count, const steer::Objectives& reference) {
  std::vector<int64_t> numbers;
  std::vector<steer::Objectives> values;
  for (size_t t = 0; t < trials.size(); ++t) {
    const std::optional<steer::Objectives> value = ObjectivesOf(trials[t].score);
    if (!value.has_value() || (*value)[0] >= reference[0] || (*value)[1] >= reference[1]) continue;
    numbers.push_back(static_cast<int64_t>(t));
    values.push_back(*value);
  }
  std::vector<int64_t> chosen;
  if (!values.empty()) {
    const size_t front = steer::SortIntoFronts(values).front().size();
    for (const size_t i : steer::SelectBest(values, std::min(front, static_cast<size_t>(count)), reference)) {
      chosen.push_back(numbers[i]);
    }
  }
  const bool has_first = std::find(chosen.begin(), chosen.end(), 0) != chosen.end();
  if (!has_first && !trials.empty() && ObjectivesOf(trials[0].score).has_value()) chosen.push_back(0);
  std::sort(chosen.begin(), chosen.end(), [&](int64_t a, int64_t b) {
    const double kl_a = trials[static_cast<size_t>(a)].score->kl;
    const double kl_b = trials[static_cast<size_t>(b)].score->kl;
    return kl_a != kl_b ? kl_a < kl_b : a < b;
  });
  return chosen;
}

absl::StatusOr<std::vector<SearchPoint>> CompletePoints(SearchInputs& inputs, const SearchOptions& options,
                                                        const SearchSpace& space, const std::vector<Trial>& trials,
                                                        const std::vector<int64_t>& chosen, steer::Replicas& replicas,
                                                        SearchJournal* journal, const steer::Replicas::Progress& progress) {
  JobContext& context = inputs.context;
  std::vector<int64_t> all = {-1};
  all.insert(all.end(), chosen.begin(), chosen.end());
  BEARING_ASSIGN_OR_RETURN(const json missing, context.FromRank0([&]() -> absl::StatusOr<json> {
    json numbers = json::array();
    for (const int64_t trial : all) {
      if (journal->Completions(trial) == nullptr) numbers.push_back(trial);
    }
    return numbers;
  }));
  std::vector<steer::GenerationTask> tasks;
  for (const json& number : missing) {
    steer::GenerationTask& task = tasks.emplace_back();
    task.rows = &inputs.positive;
    const auto trial = number.get<int64_t>();
    if (trial < 0) continue;
    BEARING_ASSIGN_OR_RETURN(const edit::EditSpec spec, space.SpecOf(space.Decode(trials[static_cast<size_t>(trial)].point)));
    BEARING_ASSIGN_OR_RETURN(task.intervention, RemovalOf(spec, space.num_layers(), space.d_model()));
  }
  steer::GenerationOptions generation;
  const int64_t of_run = context.spec.evaluate().max_new_tokens();
  generation.max_new_tokens = options.max_new_tokens > 0 ? options.max_new_tokens : std::max<int64_t>(of_run, 1);
  generation.budget = context.token_budget;
  if (progress) generation.progress = progress;
  BEARING_ASSIGN_OR_RETURN(const std::vector<steer::Rows> answers, steer::GenerateRows(replicas, tasks, generation));
  std::vector<SearchPoint> points;
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    std::vector<json> lines;
    for (size_t i = 0; i < answers.size(); ++i) {
      BEARING_ASSIGN_OR_RETURN(json line, CompletionsJson(inputs, missing[i].get<int64_t>(), answers[i]));
      lines.push_back(std::move(line));
    }
    BEARING_RETURN_IF_ERROR(journal->Append(lines));
    for (const int64_t trial : all) {
      const json& line = *journal->Completions(trial);
      points.push_back({trial, line.value("shown", int64_t{0}), line.value("answers", int64_t{0}), false});
    }
    std::vector<steer::Objectives> values;
    for (size_t i = 1; i < points.size(); ++i) {
      values.push_back({points[i].share(), trials[static_cast<size_t>(points[i].trial)].score->kl});
    }
    if (values.empty()) return absl::OkStatus();
    const std::vector<std::vector<size_t>> fronts = steer::SortIntoFronts(values);
    for (const size_t i : fronts.front()) points[i + 1].on_front = true;
    return absl::OkStatus();
  }));
  return points;
}

}  // namespace bearing::worker
