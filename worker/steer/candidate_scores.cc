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

}  // namespace

CandidateScorer::CandidateScorer(model::Decoder& decoder, const Rows& positive, const Rows& negative,
                                 std::vector<int32_t> metric_tokens, int64_t budget)
    : decoder_(decoder), positive_(positive), negative_(negative), metric_tokens_(std::move(metric_tokens)), budget_(budget) {}

absl::Status CandidateScorer::RunBaseline() {
  for (const bool is_positive : {true, false}) {
    const Rows& rows = is_positive ? positive_ : negative_;
    const RowBatcher batcher(decoder_.config(), rows, /*keep=*/1);
    double sum = 0;
    std::vector<at::Tensor> probabilities;
    for (const RowRange range : batcher.Cut(budget_)) {
      model::PackedBatch batch;
      std::vector<int> segments;
      std::vector<int64_t> read;
      batcher.AppendGroup(range, model::Intervention(), batch, segments, read);
      BEARING_ASSIGN_OR_RETURN(const at::Tensor last, decoder_.Run(batch, read, {}));
      BEARING_ASSIGN_OR_RETURN(at::Tensor p, LocalProbabilities(decoder_, last));
      BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
      sum += Sum(metric);
      if (!is_positive) probabilities.push_back(std::move(p));
    }
    (is_positive ? positive_metric_ : negative_metric_) = sum / static_cast<double>(rows.size());
    if (!is_positive) baseline_NV_ = at::cat(probabilities, 0);
  }
  return absl::OkStatus();
}

absl::Status CandidateScorer::ScoreInduce(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  std::map<int64_t, std::vector<size_t>> by_layer;
  for (size_t c = 0; c < candidates.size(); ++c) by_layer[candidates[c].layer].push_back(c);
  if (by_layer.empty()) return absl::OkStatus();
  const int64_t num_layers = decoder_.config().num_layers();
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  const std::vector<RowRange> ranges = batcher.Cut(budget_);
  std::vector<double> sums(candidates.size(), 0.0);

  for (size_t part = 0; part < ranges.size(); ++part) {
    const RowRange range = ranges[part];
    model::PackedBatch base;
    std::vector<int> segments;
    std::vector<int64_t> read;
    batcher.AppendGroup(range, model::Intervention(), base, segments, read);
    const int64_t tokens = base.num_tokens();
    const size_t groups_at_once = std::max<int64_t>(1, budget_ / tokens);
    BEARING_ASSIGN_OR_RETURN(at::Tensor x, decoder_.Embed(base));

    int64_t layer = 0;
    for (const auto& [at_layer, members] : by_layer) {
      BEARING_RETURN_IF_ERROR(decoder_.RunBlocks(base, layer, at_layer, read, {}, x));
      layer = at_layer;
      for (size_t first = 0; first < members.size(); first += groups_at_once) {
        const size_t count = std::min(groups_at_once, members.size() - first);
        model::PackedBatch branch;
        std::vector<int> branch_segments;
        std::vector<int64_t> branch_read;
        for (size_t g = 0; g < count; ++g) {
          model::Intervention add;
          add.add = candidates[members[first + g]].mean_difference;
          add.add_layer = at_layer;
          batcher.AppendGroup(range, add, branch, branch_segments, branch_read);
        }
        at::Tensor y = x.repeat({static_cast<int64_t>(count), 1});
        BEARING_RETURN_IF_ERROR(decoder_.RunBlocks(branch, at_layer, num_layers, branch_read, {}, y));
        BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, y));
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
        for (size_t g = 0; g < count; ++g) {
          const auto begin = metric.begin() + static_cast<std::ptrdiff_t>(g * range.size());
          const size_t candidate = members[first + g];
          sums[candidate] += std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(range.size()), 0.0);
          if (part + 1 == ranges.size()) {
            BEARING_RETURN_IF_ERROR(sink(candidate, sums[candidate] / static_cast<double>(negative_.size())));
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CandidateScorer::RunAblated(absl::Span<const CandidateVector> candidates, const Rows& rows,
                                         const std::function<absl::Status(size_t, RowRange, const at::Tensor&)>& score) {
  const RowBatcher batcher(decoder_.config(), rows, /*keep=*/1);
  const std::vector<RowRange> ranges = batcher.Cut(budget_);
  struct Unit {
    size_t candidate;
    RowRange range;
  };
  std::vector<Unit> units;
  for (size_t c = 0; c < candidates.size(); ++c) {
    for (const RowRange range : ranges) units.push_back({c, range});
  }
  for (size_t first = 0; first < units.size();) {
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    size_t next = first;
    while (next < units.size() && (next == first || batch.num_tokens() + batcher.TokensOf(units[next].range) <= budget_)) {
      model::Intervention ablate;
      ablate.ablate_basis = candidates[units[next].candidate].direction.unsqueeze(0);
      batcher.AppendGroup(units[next].range, ablate, batch, segments, read);
      ++next;
    }
    BEARING_ASSIGN_OR_RETURN(const at::Tensor last, decoder_.Run(batch, read, {}));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
    int64_t row = 0;
    for (; first < next; ++first) {
      const int64_t n = static_cast<int64_t>(units[first].range.size());
      BEARING_RETURN_IF_ERROR(score(units[first].candidate, units[first].range, p.narrow(0, row, n)));
      row += n;
    }
  }
  return absl::OkStatus();
}

absl::Status CandidateScorer::ScoreKl(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  double sum = 0;
  return RunAblated(candidates, negative_, [&](size_t candidate, RowRange range, const at::Tensor& p) -> absl::Status {
    if (range.begin == 0) sum = 0;
    const at::Tensor baseline = baseline_NV_.narrow(0, static_cast<int64_t>(range.begin), static_cast<int64_t>(range.size()));
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> kl, RowKl(decoder_, baseline, p));
    sum += Sum(kl);
    if (range.end < negative_.size()) return absl::OkStatus();
    return sink(candidate, sum / static_cast<double>(negative_.size()));
  });
}

absl::Status CandidateScorer::ScoreBypass(absl::Span<const CandidateVector> candidates, const ScoreSink& sink) {
  double sum = 0;
  return RunAblated(candidates, positive_, [&](size_t candidate, RowRange range, const at::Tensor& p) -> absl::Status {
    if (range.begin == 0) sum = 0;
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
    sum += Sum(metric);
    if (range.end < positive_.size()) return absl::OkStatus();
    return sink(candidate, sum / static_cast<double>(positive_.size()));
  });
}

}  // namespace bearing::steer
