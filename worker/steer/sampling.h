// Sampled tokens from vocabulary-parallel logits: no rank ever holds a whole row.
//
// A token is drawn from softmax(logits / temperature), cut to its nucleus where top_p < 1 (Holtzman et al. 2020): the fewest
// tokens, likeliest first (of equals the lower id first), whose probabilities sum to at least top_p.
//
// How: of token v with weight w_v = exp((logit_v - max) / temperature), an exponential clock rings at E_v / w_v, and the first
// to ring is the token. P(v is first) = w_v / sum w, so this is exact; it is the Gumbel-max draw (argmax of logit / temperature
// plus Gumbel noise) with its logarithm taken off. Each rank races its own columns and one gather finds the winner. E_v comes
// from the bits of Philox at the counter (token, step, prompt), key = seed: it depends on nothing else, so neither the layout
// of the ranks nor the rows of a batch nor the order of the work changes it. Rounding of logits between layouts can change a
// token only where two clocks ring within that rounding of each other, however small the probabilities are. The same noise for
// a prompt under every intervention (common random numbers): completions part only where the distributions do.
//
// The nucleus is exact too. Ranks give their k likeliest tokens. Of the merged list those above every rank's k-th weight are
// certainly the likeliest of all; if they reach top_p, the cut is found, else k grows, at last to the whole vocabulary.
#ifndef BEARING_WORKER_STEER_SAMPLING_H_
#define BEARING_WORKER_STEER_SAMPLING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/comm/communicator.h"

namespace bearing::steer {

struct Sampling {
  double temperature = 0;  // 0: the likeliest token (greedy).
  double top_p = 1;        // In (0, 1]; 1: no cut.
  uint64_t seed = 0;

  bool is_greedy() const { return temperature == 0; }
};

// One token a row. `logits_NV`: this rank's columns, the first of which is token `vocab_begin`; overwritten. `prompts` [N]:
// which prompt each row continues. Collective over `comm`; every rank gets the same.
absl::StatusOr<std::vector<int32_t>> SampleTokens(comm::Communicator& comm, int64_t vocab_begin, at::Tensor logits_NV,
                                                  const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step);

// The last token of a row's nucleus in its order; tokens with less weight, or with the same and a higher id, are outside.
struct NucleusEnd {
  double weight = 0;
  int64_t id = 0;
};

// Of each row of `weights_NV` (not negative). `first_k`: how many tokens a rank gives at first. Collective.
absl::StatusOr<std::vector<NucleusEnd>> FindNuclei(comm::Communicator& comm, int64_t vocab_begin, const at::Tensor& weights_NV,
                                                   double top_p, int64_t first_k = 64);

// The first clock to ring among this rank's columns, [N, 2] fp64 on the host: when, and the token's id. `ends` is empty where
// there is no cut. Local. kHost needs weights in host memory; kAten runs anywhere and gives the same tokens.
enum class RaceKind { kHost, kAten };
at::Tensor Race(RaceKind kind, const at::Tensor& weights_NV, int64_t vocab_begin, absl::Span<const NucleusEnd> ends,
                const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_SAMPLING_H_
