// Cross-entropy and KL: on the model's own baseline completions, and on texts of any kind.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "jobs/cost_statistics.h"
#include "jobs/json_lines.h"
#include "jobs/prompt_set.h"
#include "sharding/status_macros.h"
#include "worker/stages/cost_run.h"
#include "worker/stages/prompt_rows.h"

namespace bearing::worker {
namespace {

using nlohmann::json;
using steer::ScoredRow;

// Sums of cross-entropy over all items, and of KL by place in the row.
class TextSums {
 public:
  TextSums(const std::vector<std::string>& names, int64_t kl_tokens)
      : names_(names),
        entropy_(names.size()),
        kl_(names.size()),
        kl_by_token_(names.size(), std::vector<double>(static_cast<size_t>(kl_tokens))),
        rows_by_token_(static_cast<size_t>(kl_tokens)) {}

  void Add(const RowScores& row) {
    std::vector<double> negative(names_.size()), kl(names_.size());
    for (size_t i = 0; i < names_.size(); ++i) {
      negative[i] = -row.log_likelihoods[i];
      kl[i] = std::accumulate(row.kl[i].begin(), row.kl[i].end(), 0.0);
      for (size_t t = 0; t < row.kl[i].size(); ++t) kl_by_token_[i][t] += row.kl[i][t];
    }
    entropy_.Add(static_cast<double>(row.tokens), negative);
    if (rows_by_token_.empty()) return;
    const size_t compared = std::min(rows_by_token_.size(), static_cast<size_t>(row.tokens));
    for (size_t t = 0; t < compared; ++t) ++rows_by_token_[t];
    kl_.Add(static_cast<double>(compared), kl);
  }

  // An entry of costs.json with what all of them have.
  json Entry(const std::string& kind, const std::string& set, const std::string& unit, int64_t skipped) const {
    json metrics = json::array();
    json entry = {{"kind", kind},
                  {"set", set},
                  {"items", entropy_.items()},
                  {"unit", unit},
                  {"tokens", static_cast<int64_t>(entropy_.size())},
                  {"skipped", skipped}};
    if (entropy_.items() > 0) {
      metrics.push_back(jobs::RatioMetric("cross_entropy", names_, entropy_));
      metrics.push_back(jobs::ExpMetric("perplexity", names_, entropy_));
      if (!rows_by_token_.empty()) AddKl(metrics, entry);
    }
    entry["metrics"] = std::move(metrics);
    return entry;
  }

 private:
  void AddKl(json& metrics, json& entry) const {
    json metric = jobs::DivergenceMetric("kl", names_, kl_);
    metric["tokens"] = static_cast<int64_t>(kl_.size());
    metrics.push_back(std::move(metric));
    entry["kl_tokens"] = rows_by_token_.size();
    json& by_token = entry["kl_by_token"] = json::object();
    for (size_t i = 1; i < names_.size(); ++i) {
      json means = json::array();
      for (size_t t = 0; t < rows_by_token_.size() && rows_by_token_[t] > 0; ++t) {
        means.push_back(kl_by_token_[i][t] / static_cast<double>(rows_by_token_[t]));
      }
      by_token[names_[i]] = std::move(means);
    }
  }

  const std::vector<std::string>& names_;
  jobs::PairedRatio entropy_, kl_;
  std::vector<std::vector<double>> kl_by_token_;  // Sums, by intervention.
  std::vector<int64_t> rows_by_token_;            // That have so many tokens.
};

void WriteTextItem(const CostRun& run, const std::string& set, int64_t item, const RowScores& row) {
  json line = {{"set", set}, {"item", item}, {"tokens", row.tokens}};
  for (size_t i = 0; i < run.names.size(); ++i) {
    line["log_likelihood"][run.names[i]] = row.log_likelihoods[i];
    if (!row.kl[i].empty()) line["kl"][run.names[i]] = row.kl[i];
  }
  run.WriteItem(line);
}

struct BaselineCompletion {
  std::string prompt, response;
};

absl::StatusOr<std::vector<BaselineCompletion>> ReadBaseline(const JobContext& context, const std::string& side, int count) {
  std::vector<BaselineCompletion> found;
  const auto take = [&](const std::string& where, const json& line) -> absl::Status {
    if (line.value("side", "") != side || line.value("intervention", "") != "baseline") return absl::OkStatus();
    if (count > 0 && found.size() == static_cast<size_t>(count)) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(std::string prompt, jobs::TextAt(where, line, "prompt"));
    found.push_back({std::move(prompt), line.value("response", "")});
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(jobs::ForEachJsonLine(context.output->PathOf("completions.jsonl"), 0, take));
  return found;
}

}  // namespace

Measurement MeasureCompletions(CostRun& run, const std::string& side) {
  const bearing::v1::CostCompletions& wanted = run.context.spec.costs().completions();
  const std::string set = absl::StrCat("own completions, ", side, " prompts");
  std::vector<BaselineCompletion> completions;
  BEARING_RETURN_IF_ERROR(run.context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(completions, ReadBaseline(run.context, side, wanted.count()));
    return absl::OkStatus();
  }));
  TextSums sums(run.names, wanted.kl_tokens());
  int64_t skipped = 0;
  ItemSource source;
  source.count = static_cast<int64_t>(completions.size());
  source.unit = "completions";
  source.rows = [&](int64_t item) -> absl::StatusOr<std::vector<ScoredRow>> {
    const BaselineCompletion& completion = completions[static_cast<size_t>(item)];
    BEARING_ASSIGN_OR_RETURN(const std::string prompt, RenderPrompt(run.context, completion.prompt));
    ScoredRow row;
    BEARING_ASSIGN_OR_RETURN(row.tokens, run.context.tokenizer->Encode(prompt));
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> response, run.context.tokenizer->Encode(completion.response));
    row.first = static_cast<int64_t>(row.tokens.size());
    row.tokens.insert(row.tokens.end(), response.begin(), response.end());
    // Encoded anew, an answer at the end of the context may have become longer.
    const auto room = static_cast<size_t>(run.context.reader->config().max_positions);
    row.tokens.resize(std::min(row.tokens.size(), room + 1));
    if (row.first > 0 && row.num_scored() > 0) return std::vector<ScoredRow>{std::move(row)};
    ++skipped;  // An empty answer.
    return std::vector<ScoredRow>();
  };
  source.take = [&](int64_t item, const std::vector<RowScores>& rows) {
    sums.Add(rows[0]);
    WriteTextItem(run, set, item, rows[0]);
  };
  BEARING_RETURN_IF_ERROR(ScoreItems(run, source, wanted.kl_tokens()));
  return sums.Entry("completions", set, source.unit, skipped);
}

Measurement MeasureTexts(CostRun& run, const bearing::v1::CostTexts& set) {
  std::vector<jobs::Prompt> texts;
  BEARING_RETURN_IF_ERROR(run.context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(texts, jobs::LoadPrompts(set.file(), set.column(), set.count()));
    return absl::OkStatus();
  }));
  TextSums sums(run.names, 0);
  int64_t skipped = 0, shortened = 0;
  const auto limit = static_cast<size_t>(std::min<int64_t>(set.max_tokens(), run.context.reader->config().max_positions + 1));
  ItemSource source;
  source.count = static_cast<int64_t>(texts.size());
  source.unit = "texts";
  source.rows = [&](int64_t item) -> absl::StatusOr<std::vector<ScoredRow>> {
    ScoredRow row;
    BEARING_ASSIGN_OR_RETURN(row.tokens, run.context.tokenizer->Encode(texts[static_cast<size_t>(item)].instruction,
                                                                       /*add_special_tokens=*/true));
    if (row.tokens.size() > limit) {
      ++shortened;
      row.tokens.resize(limit);
    }
    if (row.num_scored() > 0) return std::vector<ScoredRow>{std::move(row)};
    ++skipped;  // Nothing stands before its only token.
    return std::vector<ScoredRow>();
  };
  source.take = [&](int64_t item, const std::vector<RowScores>& rows) {
    sums.Add(rows[0]);
    WriteTextItem(run, set.name(), item, rows[0]);
  };
  BEARING_RETURN_IF_ERROR(ScoreItems(run, source, 0));
  json entry = sums.Entry("texts", set.name(), source.unit, skipped);
  entry["max_tokens"] = set.max_tokens();
  entry["shortened"] = shortened;
  return entry;
}

}  // namespace bearing::worker
