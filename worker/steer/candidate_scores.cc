#include "worker/steer/candidate_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "sharding/status_macros.h"
#include "worker/steer/concept_metric.h"

namespace bearing::steer {
namespace {

// Scores by candidate and row, each filled by the replica that ran it. Means are taken at the end, in one order: the same bits
// whoever ran what.
class ScoreTable {
 public:
  ScoreTable(size_t candidates, size_t rows)
      : table_CN_(at::zeros({static_cast<int64_t>(candidates), static_cast<int64_t>(rows)}, at::kDouble)) {}

  void Put(size_t candidate, size_t first_row, absl::Span<const double> scores) {
    std::copy(
        scores.begin(), scores.end(),
        table_CN_.data_ptr<double>() + static_cast<int64_t>(candidate) * table_CN_.size(1) + static_cast<int64_t>(first_row));
  }

  // Of each candidate. Collective over all replicas.
  absl::StatusOr<std::vector<double>> Sums(const Replicas& replicas) {
    BEARING_RETURN_IF_ERROR(replicas.Sum(table_CN_));
    const at::Tensor sums = at::sum(table_CN_, {1});
    return std::vector<double>(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + sums.numel());
  }

 private:
  at::Tensor table_CN_;
};

// Progress of a part of the work that begins at share `begin` and is `size` of it.
Replicas::Progress PartOf(const Replicas::Progress& progress, double begin, double size) {
  if (!progress) return {};
  return [&progress, begin, size](double share) { return progress(begin + share * size); };
}

}  // namespace

CandidateScorer::CandidateScorer(Replicas& replicas, const Rows& positive, const Rows& negative,
                                 std::vector<int32_t> metric_tokens, int64_t budget, int64_t slab_rows)
    : replicas_(replicas),
      decoder_(replicas.decoder()),
      positive_(positive),
      negative_(negative),
      metric_tokens_(std::move(metric_tokens)),
      budget_(budget),
      slab_rows_(static_cast<size_t>(slab_rows)) {}

RowRange CandidateScorer::SlabOf(const Rows& rows, size_t index) const {
  return {std::min(rows.size(), index * slab_rows_), std::min(rows.size(), (index + 1) * slab_rows_)};
}

CandidateScorer::Scores CandidateScorer::MeanOverSlabs(const Rows& rows, const Replicas::Progress& progress,
                                                       const SlabWork& work) const {
  const auto all = static_cast<double>(rows.size());
  std::vector<double> means;
  RowRange slab;
  for (size_t index = 0; (slab = SlabOf(rows, index)).size() > 0; ++index) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> sums, work(slab, PartOf(progress, static_cast<double>(slab.begin) / all,
                                                                               static_cast<double>(slab.size()) / all)));
    means.resize(sums.size(), 0);
    for (size_t c = 0; c < sums.size(); ++c) means[c] += sums[c] / all;
  }
  return means;
}

absl::StatusOr<CandidateScorer::MetricSums> CandidateScorer::RunBaselineSlab(RowRange positive, RowRange negative,
                                                                             const Replicas::Progress& progress) {
  std::vector<model::Pass> passes;
  ScoreTable positive_scores(1, positive.size());
  ScoreTable negative_scores(1, negative.size());
  baseline_slab_ = negative;
  baseline_NV_ = at::zeros({static_cast<int64_t>(negative.size()), decoder_.local_vocab().size()},
                           at::device(decoder_.device()).dtype(at::kFloat));
  for (const bool is_positive : {true, false}) {
    const RowRange slab = is_positive ? positive : negative;
    const RowBatcher batcher(decoder_.config(), is_positive ? positive_ : negative_, /*keep=*/1);
    ScoreTable& scores = is_positive ? positive_scores : negative_scores;
    for (const RowRange range : batcher.Cut(slab, budget_)) {
      model::Pass& pass = passes.emplace_back();
      std::vector<int> segments;
      batcher.AppendGroup(range, model::Intervention(), pass.batch, segments, pass.read);
      pass.done = [this, is_positive, range, slab, &scores](const at::Tensor& last) -> absl::Status {
        BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
        scores.Put(0, range.begin - slab.begin, metric);
        const auto first = static_cast<int64_t>(range.begin - slab.begin);
        if (!is_positive) baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())).copy_(p);
        return absl::OkStatus();
      };
    }
  }
  BEARING_RETURN_IF_ERROR(replicas_.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  BEARING_RETURN_IF_ERROR(replicas_.Sum(baseline_NV_));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_positive, positive_scores.Sums(replicas_));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_negative, negative_scores.Sums(replicas_));
  return MetricSums{of_positive[0], of_negative[0]};
}

absl::Status CandidateScorer::RunBaseline(const Replicas::Progress& progress) {
  const auto all = static_cast<double>(positive_.size() + negative_.size());
  MetricSums sums;
  double before = 0;
  for (size_t index = 0;; ++index) {
    const RowRange positive = SlabOf(positive_, index);
    const RowRange negative = SlabOf(negative_, index);
    const auto rows = static_cast<double>(positive.size() + negative.size());
    if (rows == 0) break;
    BEARING_ASSIGN_OR_RETURN(const MetricSums more,
                             RunBaselineSlab(positive, negative, PartOf(progress, before / all, rows / all)));
    sums.positive += more.positive;
    sums.negative += more.negative;
    before += rows;
  }
  positive_metric_ = sums.positive / static_cast<double>(positive_.size());
  negative_metric_ = sums.negative / static_cast<double>(negative_.size());
  return absl::OkStatus();
}

int64_t CandidateScorer::BudgetFor(size_t candidates, const RowBatcher& batcher, RowRange slab) const {
  return replicas_.Budget(budget_, static_cast<int64_t>(candidates) * batcher.TokensOf(slab));
}

CandidateScorer::Scores CandidateScorer::RunInduce(absl::Span<const CandidateVector> candidates, const RowBatcher& batcher,
                                                   RowRange slab, const Replicas::Progress& progress) {
  std::map<int64_t, std::vector<size_t>> by_layer;
  for (size_t c = 0; c < candidates.size(); ++c) by_layer[candidates[c].layer].push_back(c);
  ScoreTable scores(candidates.size(), slab.size());
  const int64_t budget = BudgetFor(candidates.size(), batcher, slab);

  std::vector<model::Pass> passes;
  for (const RowRange range : batcher.Cut(slab, budget)) {
    const auto base = static_cast<int>(passes.size());
    model::Pass& trunk = passes.emplace_back();
    std::vector<int> segments;
    batcher.AppendGroup(range, model::Intervention(), trunk.batch, segments, trunk.read);
    const size_t groups_at_once = std::max<int64_t>(1, budget / trunk.batch.num_tokens());
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
        branch.done = [this, chosen, range, slab, &scores](const at::Tensor& last) -> absl::Status {
          BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
          BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
          for (size_t g = 0; g < chosen.size(); ++g) {
            scores.Put(chosen[g], range.begin - slab.begin,
                       absl::MakeConstSpan(metric).subspan(g * range.size(), range.size()));
          }
          return absl::OkStatus();
        };
      }
    }
  }
  BEARING_RETURN_IF_ERROR(replicas_.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  return scores.Sums(replicas_);
}

CandidateScorer::Scores CandidateScorer::RunAblated(absl::Span<const CandidateVector> candidates, const RowBatcher& batcher,
                                                    RowRange slab, const RowScore& score, const Replicas::Progress& progress) {
  const int64_t budget = BudgetFor(candidates.size(), batcher, slab);
  const std::vector<RowRange> ranges = batcher.Cut(slab, budget);
  ScoreTable scores(candidates.size(), slab.size());
  struct Unit {
    size_t candidate;
    RowRange range;
  };
  std::vector<std::vector<Unit>> units;  // Of each pass.
  std::vector<model::Pass> passes;
  for (size_t c = 0; c < candidates.size(); ++c) {
    for (const RowRange range : ranges) {
      if (passes.empty() || passes.back().batch.num_tokens() + batcher.TokensOf(range) > budget) {
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
    passes[i].done = [this, i, slab, &units, &score, &scores](const at::Tensor& last) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
      int64_t row = 0;
      for (const Unit& unit : units[i]) {
        const auto n = static_cast<int64_t>(unit.range.size());
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_rows, score(unit.range, p.narrow(0, row, n)));
        scores.Put(unit.candidate, unit.range.begin - slab.begin, of_rows);
        row += n;
      }
      return absl::OkStatus();
    };
  }
  BEARING_RETURN_IF_ERROR(replicas_.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  return scores.Sums(replicas_);
}

CandidateScorer::Scores CandidateScorer::ScoreInduce(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  return MeanOverSlabs(negative_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) {
    return RunInduce(candidates, batcher, slab, of_slab);
  });
}

CandidateScorer::Scores CandidateScorer::ScoreKl(absl::Span<const CandidateVector> candidates,
                                                 const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  const RowScore score = [&](RowRange range, const at::Tensor& p) {
    const auto first = static_cast<int64_t>(range.begin - baseline_slab_.begin);
    return RowKl(decoder_, baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())), p);
  };
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  return MeanOverSlabs(negative_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) -> Scores {
    if (slab.begin != baseline_slab_.begin || slab.end != baseline_slab_.end) {
      BEARING_RETURN_IF_ERROR(RunBaselineSlab(RowRange(), slab, Replicas::Progress()).status());
    }
    return RunAblated(candidates, batcher, slab, score, of_slab);
  });
}

CandidateScorer::Scores CandidateScorer::ScoreBypass(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  const RowScore score = [&](RowRange, const at::Tensor& p) { return ConceptMetric(decoder_, p, metric_tokens_); };
  const RowBatcher batcher(decoder_.config(), positive_, /*keep=*/1);
  return MeanOverSlabs(positive_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) {
    return RunAblated(candidates, batcher, slab, score, of_slab);
  });
}

}  // namespace bearing::steer
