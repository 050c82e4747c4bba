#include "worker/steer/candidate_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

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

}  // namespace

CandidateScorer::CandidateScorer(Replicas& replicas, const Rows& positive, const Rows& negative,
                                 std::vector<int32_t> metric_tokens, int64_t budget)
    : replicas_(replicas),
      decoder_(replicas.decoder()),
      positive_(positive),
      negative_(negative),
      metric_tokens_(std::move(metric_tokens)),
      budget_(budget) {}

absl::Status CandidateScorer::RunBaseline(const Replicas::Progress& progress) {
  std::vector<model::Pass> passes;
  ScoreTable positive_scores(1, positive_.size());
  ScoreTable negative_scores(1, negative_.size());
  baseline_NV_ = at::zeros({static_cast<int64_t>(negative_.size()), decoder_.local_vocab().size()},
                           at::device(decoder_.device()).dtype(at::kFloat));
  for (const bool is_positive : {true, false}) {
    const RowBatcher batcher(decoder_.config(), is_positive ? positive_ : negative_, /*keep=*/1);
    ScoreTable& scores = is_positive ? positive_scores : negative_scores;
    for (const RowRange range : batcher.Cut(budget_)) {
      model::Pass& pass = passes.emplace_back();
      std::vector<int> segments;
      batcher.AppendGroup(range, model::Intervention(), pass.batch, segments, pass.read);
      pass.done = [this, is_positive, range, &scores](const at::Tensor& last) -> absl::Status {
        BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
        scores.Put(0, range.begin, metric);
        const auto first = static_cast<int64_t>(range.begin);
        if (!is_positive) baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())).copy_(p);
        return absl::OkStatus();
      };
    }
  }
  BEARING_RETURN_IF_ERROR(replicas_.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  BEARING_RETURN_IF_ERROR(replicas_.Sum(baseline_NV_));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> positive, positive_scores.Means(replicas_));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> negative, negative_scores.Means(replicas_));
  positive_metric_ = positive[0];
  negative_metric_ = negative[0];
  return absl::OkStatus();
}

int64_t CandidateScorer::BudgetFor(size_t candidates, const RowBatcher& batcher, const Rows& rows) const {
  return replicas_.Budget(budget_, static_cast<int64_t>(candidates) * batcher.TokensOf({0, rows.size()}));
}

CandidateScorer::Scores CandidateScorer::ScoreInduce(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  if (candidates.empty()) return std::vector<double>();
  std::map<int64_t, std::vector<size_t>> by_layer;
  for (size_t c = 0; c < candidates.size(); ++c) by_layer[candidates[c].layer].push_back(c);
  const RowBatcher batcher(decoder_.config(), negative_, /*keep=*/1);
  ScoreTable scores(candidates.size(), negative_.size());
  const int64_t budget = BudgetFor(candidates.size(), batcher, negative_);

  std::vector<model::Pass> passes;
  for (const RowRange range : batcher.Cut(budget)) {
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
        branch.done = [this, chosen, range, &scores](const at::Tensor& last) -> absl::Status {
          BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder_, last));
          BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, metric_tokens_));
          for (size_t g = 0; g < chosen.size(); ++g) {
            scores.Put(chosen[g], range.begin, absl::MakeConstSpan(metric).subspan(g * range.size(), range.size()));
          }
          return absl::OkStatus();
        };
      }
    }
  }
  BEARING_RETURN_IF_ERROR(replicas_.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  return scores.Means(replicas_);
}

absl::StatusOr<at::Tensor> CandidateScorer::NegativeKl(absl::Span<const model::Intervention> interventions,
                                                       const Replicas::Progress& progress) {
  const RowScore score = [&](RowRange range, const at::Tensor& p) {
    const auto first = static_cast<int64_t>(range.begin);
    return RowKl(decoder_, baseline_NV_.narrow(0, first, static_cast<int64_t>(range.size())), p);
  };
  return ScoreInterventions(replicas_, interventions, negative_, budget_, score, progress);
}

absl::StatusOr<at::Tensor> CandidateScorer::PositiveMetric(absl::Span<const model::Intervention> interventions,
                                                           const Replicas::Progress& progress) {
  const RowScore score = [&](RowRange, const at::Tensor& p) { return ConceptMetric(decoder_, p, metric_tokens_); };
  return ScoreInterventions(replicas_, interventions, positive_, budget_, score, progress);
}

CandidateScorer::Scores CandidateScorer::ScoreKl(absl::Span<const CandidateVector> candidates,
                                                 const Replicas::Progress& progress) {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor scores, NegativeKl(Ablations(candidates), progress));
  return MeanOfRows(scores);
}

CandidateScorer::Scores CandidateScorer::ScoreBypass(absl::Span<const CandidateVector> candidates,
                                                     const Replicas::Progress& progress) {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor scores, PositiveMetric(Ablations(candidates), progress));
  return MeanOfRows(scores);
}

}  // namespace bearing::steer
