// Log-likelihood of given tokens, and KL of next-token distributions, under several interventions at once. Baseline and
// interventions are groups of the same batch, so distributions meet where they are and none is ever kept; no rank holds a whole
// row of logits.
//
// Log-likelihood of a row: sum over its scored tokens of log p(token | tokens before it), logits in fp32, the denominator of
// the softmax and all sums in fp64. KL at a scored token: sum_v p_v (log p_v - log q_v) over the whole vocabulary, p = as the
// model is, q = under the intervention, nothing added to either; terms in fp32, sums in fp64.
#ifndef BEARING_WORKER_STEER_TOKEN_SCORES_H_
#define BEARING_WORKER_STEER_TOKEN_SCORES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/memory_rules.h"
#include "worker/model/intervention.h"
#include "worker/steer/replicas.h"
#include "worker/steer/shared_rows.h"

namespace bearing::steer {

struct TokenScoreOptions {
  int64_t budget = 4096;  // Tokens of a pass.
  // Scored tokens of each row, from its first on, at which the KL is taken. 0 = none.
  int64_t kl_tokens = 0;
  // Elements of logits that a rank holds at a time; a row of each intervention fits always.
  int64_t logit_elements = sharding::kLogitElements;
  Replicas::Progress progress;  // May be empty.
};

// I interventions, R rows, K kl_tokens. fp64, in host memory, the same on every rank.
struct TokenScores {
  at::Tensor log_likelihood_IR;
  at::Tensor kl_IRK;  // Of the first intervention 0; 0 behind a row's end. Undefined with kl_tokens = 0.
};

// The first of `interventions` is what the others are compared with. Collective over all replicas.
absl::StatusOr<TokenScores> ScoreTokens(Replicas& replicas, absl::Span<const ScoredRow> rows,
                                        absl::Span<const model::Intervention> interventions, const TokenScoreOptions& options);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_TOKEN_SCORES_H_
