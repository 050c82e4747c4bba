#include "worker/steer/candidate_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "sharding/status_macros.h"
#include "worker/steer/concept_metric.h"

namespace bearing::steer {
namespace {

std::vector<double> MeanOfRows(const at::Tensor& scores_CN) {
  const at::Tensor means = at::mean(scores_CN, {1});
  return std::vector<double>(means.const_data_ptr<double>(), means.const_data_ptr<double>() + means.numel());
}

std::vector<model::Intervention> Ablations(absl::Span<const CandidateVector> candidates) {
  std::vector<model::Intervention> ablations(candidates.size());
  for (size_t c = 0; c < candidates.size(); ++c) ablations[c].ablate_basis = candidates[c].direction.unsqueeze(0);
  return ablations;
}

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

absl::StatusOr<at::Tensor> CandidateScorer::OverSlabs(const Rows& rows, const Replicas::Progress& progress,
                                                      const SlabWork& work) const {
  const auto all = static_cast<double>(rows.size());
  std::vector<at::Tensor> of_slabs;
  RowRange slab;
  for (size_t index = 0; (slab = SlabOf(rows, index)).size() > 0; ++index) {
    BEARING_ASSIGN_OR_RETURN(of_slabs.emplace_back(), work(slab, PartOf(progress, static_cast<double>(slab.begin) / all,
                                                                        static_cast<double>(slab.size()) / all)));
  }
  return at::cat(of_slabs, 1);
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
  BEARING_ASSIGN_OR_RETURN(const at::Tensor of_positive, positive_scores.Merge(replicas_));
  BEARING_ASSIGN_OR_RETURN(const at::Tensor of_negative, negative_scores.Merge(replicas_));
  return MetricSums{at::sum(of_positive).item<double>(), at::sum(of_negative).item<double>()};
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

absl::StatusOr<at::Tensor> CandidateScorer::RunInduce(absl::Span<const CandidateVector> candidates, const RowBatcher& batcher,
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
  return scores.Merge(replicas_);
}

CandidateScorer::Scores CandidateScorer::ScoreInduce(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  BEARING_ASSIGN_OR_RETURN(const at::Tensor scores,
                           OverSlabs(negative_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) {
                             return RunInduce(candidates, batcher, slab, of_slab);
                           }));
  return MeanOfRows(scores);
}

absl::StatusOr<at::Tensor> CandidateScorer::NegativeKl(absl::Span<const model::Intervention> interventions,
                                                       const Replicas::Progress& progress) {
  const RowScore score = [&](RowRange range, const at::Tensor& p) {
    const auto first = static_cast<int64_t>(range.begin - baseline_slab_.begin);
    return RowKl(decoder_, baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())), p);
  };
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  return OverSlabs(negative_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) -> absl::StatusOr<at::Tensor> {
    if (slab.begin != baseline_slab_.begin || slab.end != baseline_slab_.end) {
      BEARING_RETURN_IF_ERROR(RunBaselineSlab(RowRange(), slab, Replicas::Progress()).status());
    }
    return ScoreInterventions(replicas_, interventions, batcher, slab, budget_, score, of_slab);
  });
}

absl::StatusOr<at::Tensor> CandidateScorer::PositiveMetric(absl::Span<const model::Intervention> interventions,
                                                           const Replicas::Progress& progress) {
  const RowScore score = [&](RowRange, const at::Tensor& p) { return ConceptMetric(decoder_, p, metric_tokens_); };
  const RowBatcher batcher(decoder_.config(), positive_, /*keep=*/1);
  return OverSlabs(positive_, progress, [&](RowRange slab, const Replicas::Progress& of_slab) {
    return ScoreInterventions(replicas_, interventions, batcher, slab, budget_, score, of_slab);
  });
}

CandidateScorer::Scores CandidateScorer::ScoreKl(absl::Span<const CandidateVector> candidates,
                                                 const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  BEARING_ASSIGN_OR_RETURN(const at::Tensor scores, NegativeKl(Ablations(candidates), progress));
  return MeanOfRows(scores);
}

CandidateScorer::Scores CandidateScorer::ScoreBypass(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  BEARING_ASSIGN_OR_RETURN(const at::Tensor scores, PositiveMetric(Ablations(candidates), progress));
  return MeanOfRows(scores);
}

}  // namespace bearing::steer
