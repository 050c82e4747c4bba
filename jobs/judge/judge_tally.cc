#include "jobs/judge/judge_tally.h"

#include "jobs/judge/judge_settings.h"
#include "jobs/report/concept_counts.h"

namespace bearing::jobs {
namespace {

using json = nlohmann::json;

json OrNull(const std::optional<double>& value) { return value.has_value() ? json(*value) : json(nullptr); }

}  // namespace

JudgeTally::JudgeTally(std::vector<bearing::v1::Judge> judges, std::string concept_name)
    : judges_(std::move(judges)), concept_name_(std::move(concept_name)), counts_(judges_.size()), agreement_(judges_.size()) {}

std::optional<bool> JudgeTally::ShowsConcept(size_t judge, const Verdict& verdict) const {
  if (!verdict.yes.has_value()) return std::nullopt;
  return *verdict.yes != judges_[judge].opposite();
}

size_t JudgeTally::ConditionOf(const std::string& side, const std::string& intervention) {
  for (size_t c = 0; c < conditions_.size(); ++c) {
    if (conditions_[c].first == side && conditions_[c].second == intervention) return c;
  }
  conditions_.push_back({side, intervention});
  for (Counts& counts : counts_) {
    counts.all.emplace_back();
    counts.by_category.emplace_back();
  }
  shows_.all.emplace_back();
  shows_.by_category.emplace_back();
  return conditions_.size() - 1;
}

void JudgeTally::Add(const std::string& side, const std::string& intervention, const std::string& category,
                     const std::vector<Verdict>& verdicts) {
  const size_t condition = ConditionOf(side, intervention);
  const auto count = [&](Counts& counts, const std::optional<bool>& yes) {
    for (Count* one : {&counts.all[condition], &counts.by_category[condition][category]}) {
      if (!yes.has_value()) {
        ++one->not_judged;
        continue;
      }
      ++one->judged;
      one->yes += *yes ? 1 : 0;
    }
  };
  std::vector<std::optional<bool>> shows;
  for (size_t j = 0; j < judges_.size(); ++j) {
    count(counts_[j], verdicts[j].yes);
    shows.push_back(ShowsConcept(j, verdicts[j]));
  }
  count(shows_, shows.front());
  agreement_.Add(shows);
}

json JudgeTally::RatesOf(const Counts& counts) const {
  json rates = json::array();
  for (size_t c = 0; c < conditions_.size(); ++c) {
    const Count& count = counts.all[c];
    const Rate rate = MakeRate(count.yes, count.judged);
    rates.push_back({{"side", conditions_[c].first},
                     {"intervention", conditions_[c].second},
                     {"share", rate.share},
                     {"standard_error", rate.standard_error},
                     {"n", rate.n},
                     {"not_judged", count.not_judged}});
  }
  return rates;
}

json JudgeTally::CategoriesOf(const Counts& counts) const {
  json rates = json::array();
  for (size_t c = 0; c < conditions_.size(); ++c) {
    for (const auto& [category, count] : counts.by_category[c]) {
      const Rate rate = MakeRate(count.yes, count.judged);
      rates.push_back({{"side", conditions_[c].first},
                       {"intervention", conditions_[c].second},
                       {"category", category},
                       {"share", rate.share},
                       {"standard_error", rate.standard_error},
                       {"n", rate.n},
                       {"not_judged", count.not_judged}});
    }
  }
  return rates;
}

json JudgeTally::ToJson(const std::vector<json>& models) const {
  json judges = json::array();
  for (size_t j = 0; j < judges_.size(); ++j) {
    const bearing::v1::Judge& judge = judges_[j];
    json entry = {{"name", judge.name()},
                  {"kind", judge.kind()},
                  {"finds", WhatItFinds(judge, concept_name_)},
                  {"opposite", judge.opposite()},
                  {"min_words", judge.min_words()},
                  {"threshold", judge.has_threshold() ? json(judge.threshold()) : json(nullptr)},
                  {"markers", std::vector<std::string>(judge.markers().begin(), judge.markers().end())},
                  {"model", models[j]},
                  {"rates", RatesOf(counts_[j])},
                  {"rates_by_category", CategoriesOf(counts_[j])}};
    judges.push_back(std::move(entry));
  }
  json agreement = json::array();
  for (size_t a = 0; a < judges_.size(); ++a) {
    for (size_t b = a + 1; b < judges_.size(); ++b) {
      const PairCounts& pair = agreement_.Of(a, b);
      agreement.push_back({{"judges", {judges_[a].name(), judges_[b].name()}},
                           {"n", pair.n()},
                           {"both", pair.both},
                           {"first_only", pair.first_only},
                           {"second_only", pair.second_only},
                           {"neither", pair.neither},
                           {"raw", OrNull(pair.Raw())},
                           {"kappa", OrNull(pair.Kappa())}});
    }
  }
  return {{"rates", RatesOf(shows_)},
          {"rates_by_category", CategoriesOf(shows_)},
          {"judges", std::move(judges)},
          {"agreement", std::move(agreement)}};
}

}  // namespace bearing::jobs
