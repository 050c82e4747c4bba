#include "worker/steer/candidate_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "sharding/status_macros.h"
#include "worker/steer/concept_metric.h"

namespace bearing::steer {
namespace {

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// Means over the rows of each candidate, handed on when its last rows are in, in whatever order they come.
class Means {
 public:
  Means(size_t candidates, size_t rows, const ScoreSink& sink) : rows_(rows), sums_(candidates), seen_(candidates), sink_(sink) {}

  absl::Status Add(size_t candidate, double sum, size_t rows) {
    sums_[candidate] += sum;
    seen_[candidate] += rows;
    return seen_[candidate] < rows_ ? absl::OkStatus() : sink_(candidate, sums_[candidate] / static_cast<double>(rows_));
  }

 private:
  size_t rows_;
  std::vector<double> sums_;
  std::vector<size_t> seen_;
  const ScoreSink& sink_;
};

}  // namespace

CandidateScorer::CandidateScorer(model::Decoder& decoder, const Rows& positive, const Rows& negative,
                                 std::vector<int32_t> metric_tokens, int64_t budget)
    : decoder_(decoder), positive_(positive), negative_(negative), metric_tokens_(std::move(metric_tokens)), budget_(budget) {}

absl::Status CandidateScorer::RunBaseline() {
  std::vector<model::Pass> passes;
  std::vector<at::Tensor> probabilities;  // Of the negative prompts, a part each.
  double positive_sum = 0;
  double negative_sum = 0;
  for (const bool is_positive : {true, false}) {
    const RowBatcher batcher(decoder_.config(), is_positive ? positive_ : negative_, /*keep=*/1);
    for (const RowRange range : batcher.Cut(budget_)) {
      model::Pass& pass = passes.emplace_back();
      std::vector<int> segments;
      batcher.AppendGroup(range, model::Intervention(), pass.batch, segments, pass.read);
      const size_t part = is_positive ? 0 : probabilities.size();
      if (!is_positive) probabilities.emplace_back();
      pass.done = [this, is_positive, part, &positive_sum, &negative_sum, &probabilities](const at::Tensor& last) -> absl::Status {
        BEARING_ASSIGN_OR_RETURN(at::Tensor p, LocalProbabilities(decoder_, last));
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
        (is_positive ? positive_sum : negative_sum) += Sum(metric);
        if (!is_positive) probabilities[part] = std::move(p);
        return absl::OkStatus();
      };
    }
  }
  BEARING_RETURN_IF_ERROR(decoder_.RunPasses(absl::MakeSpan(passes)));
  positive_metric_ = positive_sum / static_cast<double>(positive_.size());
  negative_metric_ = negative_sum / static_cast<double>(negative_.size());
  baseline_NV_ = at::cat(probabilities, 0);
  return absl::OkStatus();
}

absl::Status CandidateScorer::ScoreInduce(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  if (candidates.empty()) return absl::OkStatus();
  std::map<int64_t, std::vector<size_t>> by_layer;
  for (size_t c = 0; c < candidates.size(); ++c) by_layer[candidates[c].layer].push_back(c);
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  const std::vector<RowRange> ranges = batcher.Cut(budget_);
  Means means(candidates.size(), negative_.size(), sink);

  std::vector<model::Pass> passes;
  for (const RowRange range : ranges) {
    const auto base = static_cast<int>(passes.size());
    model::Pass& trunk = passes.emplace_back();
    std::vector<int> segments;
    batcher.AppendGroup(range, model::Intervention(), trunk.batch, segments, trunk.read);
    const size_t groups_at_once = std::max<int64_t>(1, budget_ / trunk.batch.num_tokens());
    for (const auto& [layer, members] : by_layer) {
      for (size_t first = 0; first < members.size(); first += groups_at_once) {
        const absl::Span<const size_t> chosen = absl::MakeConstSpan(members).subspan(first, groups_at_once);
        model::Pass& branch = passes.emplace_back();
        branch.parent = base;
        branch.first = layer;
        for (const size_t candidate : chosen) {
          model::Intervention add;
          add.add = candidates[candidate].mean_difference;
          add.add_layer = layer;
          batcher.AppendGroup(range, add, branch.batch, segments, branch.read);
        }
        branch.done = [this, chosen, range, &means](const at::Tensor& last) -> absl::Status {
          BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
          BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
          for (size_t g = 0; g < chosen.size(); ++g) {
            const absl::Span<const double> rows = absl::MakeConstSpan(metric).subspan(g * range.size(), range.size());
            BEARING_RETURN_IF_ERROR(means.Add(chosen[g], std::accumulate(rows.begin(), rows.end(), 0.0), range.size()));
          }
          return absl::OkStatus();
        };
      }
    }
  }
  return decoder_.RunPasses(absl::MakeSpan(passes));
}

absl::Status CandidateScorer::RunAblated(absl::Span<const CandidateVector> candidates, const Rows& rows, const ScoreSink& sink,
                                         const RowScore& score) {
  const RowBatcher batcher(decoder_.config(), rows, /*keep=*/1);
  const std::vector<RowRange> ranges = batcher.Cut(budget_);
  Means means(candidates.size(), rows.size(), sink);
  struct Unit {
    size_t candidate;
    RowRange range;
  };
  std::vector<std::vector<Unit>> units;  // Of each pass.
  std::vector<model::Pass> passes;
  for (size_t c = 0; c < candidates.size(); ++c) {
    for (const RowRange range : ranges) {
      if (passes.empty() || passes.back().batch.num_tokens() + batcher.TokensOf(range) > budget_) {
        passes.emplace_back();
        units.emplace_back();
      }
      model::Intervention ablate;
      ablate.ablate_basis = candidates[c].direction.unsqueeze(0);
      std::vector<int> segments;
      batcher.AppendGroup(range, ablate, passes.back().batch, segments, passes.back().read);
      units.back().push_back({c, range});
    }
  }
  for (size_t i = 0; i < passes.size(); ++i) {
    passes[i].done = [this, i, &units, &score, &means](const at::Tensor& last) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
      int64_t row = 0;
      for (const Unit& unit : units[i]) {
        const auto n = static_cast<int64_t>(unit.range.size());
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> scores, score(unit.range, p.narrow(0, row, n)));
        BEARING_RETURN_IF_ERROR(means.Add(unit.candidate, Sum(scores), unit.range.size()));
        row += n;
      }
      return absl::OkStatus();
    };
  }
  return decoder_.RunPasses(absl::MakeSpan(passes));
}

absl::Status CandidateScorer::ScoreKl(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  return RunAblated(candidates, negative_, sink, [&](RowRange range, const at::Tensor& p) {
    const auto first = static_cast<int64_t>(range.begin);
    return RowKl(decoder_, baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())), p);
  });
}

absl::Status CandidateScorer::ScoreBypass(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  return RunAblated(candidates, positive_, sink,
                    [&](RowRange, const at::Tensor& p) { return ConceptMetric(decoder_, p, metric_tokens_); });
}

}  // namespace bearing::steer
