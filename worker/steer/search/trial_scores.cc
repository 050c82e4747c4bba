#include "worker/steer/search/trial_scores.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "sharding/status_macros.h"

namespace bearing::steer {
namespace {

// Every so-many-th row to `screen`, the others to `rest`.
void Split(const Rows& rows, int64_t count, Rows& screen, Rows& rest) {
  const auto all = static_cast<int64_t>(rows.size());
  const int64_t taken = std::min(count, all);
  for (int64_t r = 0; r < all; ++r) {
    // Row r begins one of `taken` equal parts.
    const bool first = r * taken / all != (r - 1) * taken / all || r == 0;
    (first ? screen : rest).push_back(rows[static_cast<size_t>(r)]);
  }
}

double Joined(double a, int64_t a_count, double b, int64_t b_count) {
  if (b_count == 0) return a;
  if (a_count == 0) return b;
  return (a * static_cast<double>(a_count) + b * static_cast<double>(b_count)) / static_cast<double>(a_count + b_count);
}

TrialScore Join(const TrialScore& a, const TrialScore& b) {
  return {Joined(a.probability, a.positives, b.probability, b.positives), Joined(a.metric, a.positives, b.metric, b.positives),
          Joined(a.kl, a.negatives, b.kl, b.negatives), a.positives + b.positives, a.negatives + b.negatives};
}

}  // namespace

TrialScorer::TrialScorer(Replicas& replicas, const Rows& positive, const Rows& negative, int64_t screen,
                         const std::vector<int32_t>& metric_tokens, int64_t budget) {
  Split(positive, screen, screen_.positive, rest_.positive);
  Split(negative, screen, screen_.negative, rest_.negative);
  for (Part* const part : {&screen_, &rest_}) {
    part->scorer.emplace(replicas, part->positive, part->negative, metric_tokens, budget);
  }
}

TrialScorer::Scores TrialScorer::Score(Part& part, absl::Span<const model::Intervention> trials,
                                       const Replicas::Progress& progress) {
  // Half of the work each.
  const auto half = [&](double done) -> Replicas::Progress {
    if (!progress) return {};
    return [&progress, done](double share) { return progress(done + share / 2); };
  };
  std::vector<TrialScore> scores(trials.size());
  if (!part.positive.empty()) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor metric, part.scorer->PositiveMetric(trials, half(0)));
    for (size_t t = 0; t < trials.size(); ++t) {
      const at::Tensor row = metric[static_cast<int64_t>(t)];
      scores[t].metric = at::mean(row).item<double>();
      scores[t].probability = at::mean(at::sigmoid(row)).item<double>();
      scores[t].positives = row.numel();
    }
  }
  if (!part.negative.empty()) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor kl, part.scorer->NegativeKl(trials, half(0.5)));
    for (size_t t = 0; t < trials.size(); ++t) {
      scores[t].kl = at::mean(kl[static_cast<int64_t>(t)]).item<double>();
      scores[t].negatives = kl.size(1);
    }
  }
  return scores;
}

absl::StatusOr<TrialScore> TrialScorer::RunBaseline(const Replicas::Progress& progress) {
  TrialScore all;
  const model::Intervention none;
  for (Part* const part : {&screen_, &rest_}) {
    if (part->positive.empty() && part->negative.empty()) continue;
    BEARING_RETURN_IF_ERROR(part->scorer->RunBaseline());
    BEARING_ASSIGN_OR_RETURN(const std::vector<TrialScore> score, Score(*part, {&none, 1}, progress));
    all = Join(all, score[0]);
  }
  all.kl = 0;
  return all;
}

TrialScorer::Scores TrialScorer::Screen(absl::Span<const model::Intervention> trials, const Replicas::Progress& progress) {
  return Score(screen_, trials, progress);
}

TrialScorer::Scores TrialScorer::Complete(absl::Span<const model::Intervention> trials, absl::Span<const TrialScore> screened,
                                          const Replicas::Progress& progress) {
  BEARING_ASSIGN_OR_RETURN(std::vector<TrialScore> scores, Score(rest_, trials, progress));
  for (size_t t = 0; t < trials.size(); ++t) scores[t] = Join(screened[t], scores[t]);
  return scores;
}

}  // namespace bearing::steer
