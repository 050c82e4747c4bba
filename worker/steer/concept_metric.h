// First-token measures on vocabulary-parallel logits: no rank ever holds a whole row of logits. All are collective calls.
//
// Metric of a row (Arditi et al. 2024, section 2.3): P = sum of the probabilities of the concept's tokens at the last position,
// m = log(P + 1e-8) - log(1 - P + 1e-8).
// KL of a row: sum_v p_a (log(p_a + 1e-6) - log(p_b + 1e-6)), a = baseline, b = under the intervention.
#ifndef BEARING_WORKER_STEER_CONCEPT_METRIC_H_
#define BEARING_WORKER_STEER_CONCEPT_METRIC_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/decoder.h"

namespace bearing::steer {

// This rank's columns of the probabilities of each row, fp32 [N, V of this rank].
absl::StatusOr<at::Tensor> LocalProbabilities(const model::Decoder& decoder, const at::Tensor& residual_ND);

// The same from logits that are there already; `logits_NV` is overwritten.
absl::StatusOr<at::Tensor> SoftmaxInPlace(const model::Decoder& decoder, at::Tensor logits_NV);

// Of each row, the probability of the tokens together.
absl::StatusOr<std::vector<double>> TokenProbabilities(const model::Decoder& decoder, const at::Tensor& probabilities_NV,
                                                       absl::Span<const int32_t> token_ids);

// m of each row.
absl::StatusOr<std::vector<double>> ConceptMetric(const model::Decoder& decoder, const at::Tensor& probabilities_NV,
                                                  absl::Span<const int32_t> token_ids);

// KL of each row of `ablated` against the same row of `baseline`.
absl::StatusOr<std::vector<double>> RowKl(const model::Decoder& decoder, const at::Tensor& baseline_NV,
                                          const at::Tensor& ablated_NV);

// Tokens that the model says first on one side and not on the other: mean probability on positive rows exceeds that on negative
// rows by at least 0.02 and is at least twice as large; by falling difference, at most 8.
struct DerivedToken {
  int32_t id = 0;
  double positive_probability = 0;
  double negative_probability = 0;
};
std::vector<DerivedToken> DeriveConceptTokens(const at::Tensor& positive_mean_V, const at::Tensor& negative_mean_V);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_CONCEPT_METRIC_H_
