// What the measures of the cost stage share: the interventions, and a way through any number of items in bounded memory.
#ifndef BEARING_WORKER_STAGES_COST_RUN_H_
#define BEARING_WORKER_STAGES_COST_RUN_H_

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/job_context.h"
#include "worker/model/intervention.h"
#include "worker/steer/replicas.h"
#include "worker/steer/shared_rows.h"

namespace bearing::worker {

struct CostRun {
  JobContext& context;
  steer::Replicas& replicas;
  // "baseline" first, as it is. What it is compared with follows.
  std::vector<std::string> names;
  std::vector<model::Intervention> interventions;
  // Rank 0: takes a JSON object a line for each item, where the job asks for them. May be null.
  std::ostream* items = nullptr;

  // Writes a line to `items`, if there is one. Rank 0.
  void WriteItem(const nlohmann::json& line) const;
};

// What one row of an item gave.
struct RowScores {
  int64_t tokens = 0;                   // That were scored.
  std::vector<double> log_likelihoods;  // By intervention.
  std::vector<std::vector<double>> kl;  // By intervention (the first empty), then by scored token, at most kl_tokens.
};

// Items that are scored, in their order. All members are read on rank 0 only.
struct ItemSource {
  int64_t count = 0;
  std::string unit;  // "texts"
  // The rows of an item; none to leave it out.
  std::function<absl::StatusOr<std::vector<steer::ScoredRow>>(int64_t item)> rows;
  std::function<void(int64_t item, const std::vector<RowScores>& rows)> take;
};

// Items are tokenized, sent, scored and taken some ten thousand tokens at a time. Collective.
absl::Status ScoreItems(CostRun& run, const ItemSource& source, int64_t kl_tokens);

// The measures. Each gives, on rank 0, an entry of `measurements` in costs.json. Collective.
using Measurement = absl::StatusOr<nlohmann::json>;
Measurement MeasureCompletions(CostRun& run, const std::string& side);
Measurement MeasureTexts(CostRun& run, const bearing::v1::CostTexts& set);
Measurement MeasureChoices(CostRun& run, const bearing::v1::CostChoices& set);
Measurement MeasureAnswers(CostRun& run, const bearing::v1::CostAnswers& set);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_COST_RUN_H_
