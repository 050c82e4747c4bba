#include "worker/stages/cost_run.h"

#include <algorithm>
#include <ostream>
#include <utility>

#include "sharding/status_macros.h"
#include "worker/memory.h"
#include "worker/steer/token_scores.h"

namespace bearing::worker {
namespace {

// Tokens of items that are under way at the same time: enough passes to share among replicas, and few megabytes.
constexpr int64_t kWindowTokens = 1 << 17;

struct Window {
  std::vector<steer::ScoredRow> rows;
  bool is_last = false;
};

// Streamed weights are read once for each window: as many tokens as go through a layer together.
int64_t WindowTokens(const CostRun& run) {
  if (run.replicas.decoder().residency() != model::Residency::kStreamed) return kWindowTokens;
  return std::max<int64_t>(1, run.context.stream_tokens / static_cast<int64_t>(run.names.size())) * run.replicas.count();
}

// Rank 0's next items on every rank. A row travels as its `first`, then its tokens.
absl::StatusOr<Window> NextWindow(CostRun& run, const ItemSource& source, int64_t& next, std::vector<size_t>& rows_of_item) {
  rows_of_item.clear();
  const int64_t room = WindowTokens(run);
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json sent, run.context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    nlohmann::json rows = nlohmann::json::array();
    for (int64_t tokens = 0; next < source.count && tokens < room; ++next) {
      BEARING_ASSIGN_OR_RETURN(const std::vector<steer::ScoredRow> of_item, source.rows(next));
      rows_of_item.push_back(of_item.size());
      for (const steer::ScoredRow& row : of_item) {
        nlohmann::json line = nlohmann::json::array({row.first});
        for (const int32_t token : row.tokens) line.push_back(token);
        rows.push_back(std::move(line));
        tokens += row.num_fed();
      }
    }
    return nlohmann::json{{"rows", std::move(rows)}, {"is_last", next == source.count}};
  }));
  Window window;
  window.is_last = sent.at("is_last").get<bool>();
  for (const nlohmann::json& line : sent.at("rows")) {
    steer::ScoredRow& row = window.rows.emplace_back();
    row.first = line.at(0).get<int64_t>();
    row.tokens.reserve(line.size() - 1);
    for (size_t t = 1; t < line.size(); ++t) row.tokens.push_back(line[t].get<int32_t>());
  }
  return window;
}

RowScores ScoresOf(const steer::TokenScores& scores, const steer::ScoredRow& row, int64_t index, int64_t kl_tokens) {
  RowScores found;
  found.tokens = row.num_scored();
  for (int64_t i = 0; i < scores.log_likelihood_IR.size(0); ++i) {
    found.log_likelihoods.push_back(scores.log_likelihood_IR[i][index].item<double>());
    found.kl.emplace_back();
    if (i == 0 || kl_tokens == 0) continue;
    const at::Tensor of_row = scores.kl_IRK[i][index];
    const auto* const values = of_row.const_data_ptr<double>();
    found.kl.back().assign(values, values + std::min(kl_tokens, found.tokens));
  }
  return found;
}

}  // namespace

void CostRun::WriteItem(const nlohmann::json& line) const {
  if (items != nullptr) *items << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

absl::Status ScoreItems(CostRun& run, const ItemSource& source, int64_t kl_tokens) {
  int64_t next = 0;
  for (bool is_last = false; !is_last;) {
    // What a window left behind in pieces would be added to by the next.
    ReturnFreeMemory();
    const int64_t first = next;
    std::vector<size_t> rows_of_item;
    BEARING_ASSIGN_OR_RETURN(const Window window, NextWindow(run, source, next, rows_of_item));
    is_last = window.is_last;
    steer::TokenScoreOptions options;
    options.budget = run.context.token_budget;
    options.kl_tokens = kl_tokens;
    options.progress = [&](double share) {
      const double done = static_cast<double>(first) + share * static_cast<double>(next - first);
      const auto count = static_cast<double>(std::max<int64_t>(1, source.count));
      return run.context.StepInReplica(bearing::v1::STAGE_COST, done / count, source.count, source.unit);
    };
    BEARING_ASSIGN_OR_RETURN(const steer::TokenScores scores,
                             steer::ScoreTokens(run.replicas, window.rows, run.interventions, options));
    if (!run.context.is_rank0()) continue;
    int64_t row = 0;
    for (size_t i = 0; i < rows_of_item.size(); ++i) {
      std::vector<RowScores> of_item;
      for (size_t r = 0; r < rows_of_item[i]; ++r, ++row) {
        of_item.push_back(ScoresOf(scores, window.rows[static_cast<size_t>(row)], row, kl_tokens));
      }
      if (!of_item.empty()) source.take(first + static_cast<int64_t>(i), of_item);
    }
  }
  return absl::OkStatus();
}

}  // namespace bearing::worker
