// First-token scores of prompts under many interventions, as many of them in one forward pass as fit: each is a group of its
// own in the batch, with the prompts' shared prefix once and the prompts behind it.
#ifndef BEARING_WORKER_STEER_INTERVENTION_SCORES_H_
#define BEARING_WORKER_STEER_INTERVENTION_SCORES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/intervention.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// Scores by intervention and row, each filled by the replica that ran it. Whatever is made of them is taken at the end, in one
// order: the same bits whoever ran what.
class ScoreTable {
 public:
  ScoreTable(size_t interventions, size_t rows);

  void Put(size_t intervention, size_t first_row, absl::Span<const double> scores);

  // All of them on every rank, [interventions, rows] fp64. Collective over all replicas.
  absl::StatusOr<at::Tensor> Merge(const Replicas& replicas);

 private:
  at::Tensor table_CN_;
};

// A score of each row of a range, from their probabilities: this rank's columns, [rows, V of this rank]. May run collectives of
// the replica.
using RowScore = std::function<absl::StatusOr<std::vector<double>>(RowRange range, const at::Tensor& probabilities_NV)>;

// The score of each row of `slab` under each intervention, [interventions, rows of the slab] fp64 on every rank. Ranges that
// `score` gets are of the batcher's rows. `budget`: tokens a forward pass. Collective over all replicas.
absl::StatusOr<at::Tensor> ScoreInterventions(Replicas& replicas, absl::Span<const model::Intervention> interventions,
                                              const RowBatcher& batcher, RowRange slab, int64_t budget, const RowScore& score,
                                              const Replicas::Progress& progress = {});

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_INTERVENTION_SCORES_H_
