// Bypass, induce and KL of candidate directions, many candidates a forward pass, computing nothing twice.
//
// * Induce: an addition at layer l leaves the blocks below l as they are. The candidates of a layer branch off there from one
//   baseline pass over the negative prompts.
// * KL and bypass: ablation acts from the embedding on, so each candidate is a group of its own in the batch: the shared prefix
//   once a candidate, then the prompts behind it.
//
// Long sets go through the tests in slabs of at most sharding::kSlabRows prompts: passes and the baseline's
// distribution are held of one slab, and memory grows by a number a prompt and candidate alone. The baseline of several slabs
// is computed anew for KL, one forward pass beside those of all candidates.
//
// A candidate here is an index into the caller's list: layer, raw mean difference (added), unit direction (ablated).
#ifndef BEARING_WORKER_STEER_CANDIDATE_SCORES_H_
#define BEARING_WORKER_STEER_CANDIDATE_SCORES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/memory_rules.h"
#include "worker/model/decoder.h"
#include "worker/steer/intervention_scores.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

struct CandidateVector {
  int64_t layer = 0;
  at::Tensor mean_difference;  // [D] fp32, raw: what is added.
  at::Tensor direction;        // [D] fp32, unit: what is ablated.
};

class CandidateScorer {
 public:
  // Rows and replicas must outlive the scorer. `budget`: tokens a forward pass. `slab_rows`: for tests.
  CandidateScorer(Replicas& replicas, const Rows& positive, const Rows& negative, std::vector<int32_t> metric_tokens,
                  int64_t budget, int64_t slab_rows = sharding::kSlabRows);

  // Baseline metric of both sides and the negative side's distribution, needed by the tests below. One pass.
  absl::Status RunBaseline(const Replicas::Progress& progress = {});
  double positive_metric() const { return positive_metric_; }
  double negative_metric() const { return negative_metric_; }

  // All three: a score for each candidate, on every rank. Collective over all replicas.
  using Scores = absl::StatusOr<std::vector<double>>;

  // Mean metric of the negative prompts with the mean difference added at the candidate's layer.
  Scores ScoreInduce(absl::Span<const CandidateVector> candidates, const Replicas::Progress& progress = {});

  // Mean KL of the negative prompts under ablation. After RunBaseline.
  Scores ScoreKl(absl::Span<const CandidateVector> candidates, const Replicas::Progress& progress = {});

  // Mean metric of the positive prompts under ablation.
  Scores ScoreBypass(absl::Span<const CandidateVector> candidates, const Replicas::Progress& progress = {});

  // The same tests of any interventions, of each row by itself: [interventions, rows] fp64 on every rank. NegativeKl comes
  // after RunBaseline. Collective likewise.
  absl::StatusOr<at::Tensor> NegativeKl(absl::Span<const model::Intervention> interventions,
                                        const Replicas::Progress& progress = {});
  absl::StatusOr<at::Tensor> PositiveMetric(absl::Span<const model::Intervention> interventions,
                                            const Replicas::Progress& progress = {});

 private:
  // Slab `index` of a set; empty behind the last.
  RowRange SlabOf(const Rows& rows, size_t index) const;

  // What is done with a slab: scores [candidates, rows of the slab].
  using SlabWork = std::function<absl::StatusOr<at::Tensor>(RowRange slab, const Replicas::Progress& progress)>;
  // What `work` gives for each slab of `rows`, side by side.
  absl::StatusOr<at::Tensor> OverSlabs(const Rows& rows, const Replicas::Progress& progress, const SlabWork& work) const;

  absl::StatusOr<at::Tensor> RunInduce(absl::Span<const CandidateVector> candidates, const RowBatcher& batcher, RowRange slab,
                                       const Replicas::Progress& progress);
  // The summed metrics of a slab of each side (either may be empty) as the model is, in one go; the distribution of the
  // negative one is kept in baseline_NV_.
  struct MetricSums {
    double positive = 0, negative = 0;
  };
  absl::StatusOr<MetricSums> RunBaselineSlab(RowRange positive, RowRange negative, const Replicas::Progress& progress);

  // Tokens a pass: the budget, less where several replicas would else get too few passes each.
  int64_t BudgetFor(size_t candidates, const RowBatcher& batcher, RowRange slab) const;

  Replicas& replicas_;
  model::Decoder& decoder_;
  const Rows& positive_;
  const Rows& negative_;
  std::vector<int32_t> metric_tokens_;
  int64_t budget_;
  size_t slab_rows_;
  double positive_metric_ = 0;
  double negative_metric_ = 0;
  at::Tensor baseline_NV_;  // Probabilities of a slab of the negative prompts, this rank's columns.
  RowRange baseline_slab_;  // Which.
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_CANDIDATE_SCORES_H_
