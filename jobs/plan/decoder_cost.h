// What the decoder (worker/model/decoder.h) computes, reads and sends for batches of given sizes.
//
// Letters: T tokens and N read rows of a batch, D d_model, L layers, E head_dim, H and K query and KV heads, F columns of the
// MLP, X of an expert, S of the shared expert, V rows of the vocabulary (H, K, F, X, S, V: of the rank, by its ShardPlan),
// k experts a token, s bytes of the compute type, pairs = queries x keys.
//
// A block, for T tokens:                                                FLOPs
//   queries, keys, values        2 T D (H + 2 K) E
//   scores and their values      4 pairs H E
//   attention out                2 T D H E
//   dense MLP                    2 T 3 D F
//   mixture                      2 T (D experts + k 3 D X + 3 D S + D)
//   all-reduce                   2 messages of T D s bytes
//   elementwise (bytes moved)    s (T D (2 + 3) + 2 T (H + K) E)  and  s (T D (2 + 3) + 3 T F)
// In the last block everything behind queries, keys and values is done for N rows only.
// The embedding is one message of T D s bytes; logits are 2 N D V FLOPs, probabilities three messages of at most 8 N bytes.
// A product takes the larger of its FLOPs at the machine's rate for T tokens and of one reading of its weights.
#ifndef BEARING_JOBS_PLAN_DECODER_COST_H_
#define BEARING_JOBS_PLAN_DECODER_COST_H_

#include <cstdint>

#include "jobs/plan/batches.h"
#include "jobs/plan/machine.h"
#include "sharding/model_config.h"
#include "sharding/shard_plan.h"

namespace bearing::jobs {

inline double AsReal(int64_t n) { return static_cast<double>(n); }

// Of the ranks together: flops. Of one rank, the one with most to do: everything else.
struct Work {
  double flops = 0;
  double messages = 0;
  double message_bytes = 0;
  double product_seconds = 0;
  double attention_seconds = 0;
  double elementwise_seconds = 0;  // Vocabulary rows included.
  double message_seconds = 0;
  double disk_bytes = 0;  // Read and written.
  double disk_seconds = 0;
  double other_seconds = 0;  // Conversion of weights, edit, checksums.

  double seconds() const {
    return product_seconds + attention_seconds + elementwise_seconds + message_seconds + disk_seconds + other_seconds;
  }
  void Add(const Work& other);
  // The work of one replica of `replicas`; the FLOPs stay those of all.
  void ShareOut(int64_t replicas);
};

class DecoderCost {
 public:
  // All three must outlive this. `compute_bytes`: s.
  DecoderCost(const sharding::ModelConfig& config, const sharding::ShardPlan& plan, const Machine& machine,
              int64_t compute_bytes);

  Work Embed(const Batch& batch) const;
  Work Blocks(const Batch& batch, int64_t first, int64_t end) const;
  // Embed and all blocks.
  Work Run(const Batch& batch) const;
  // Logits and probabilities of `rows` rows, and the metric of them.
  Work Probabilities(double rows) const;
  // KL of `rows` rows of probabilities to the baseline's.
  Work Kl(double rows) const;
  // One token more for `rows` rows, each with `keys` keys: blocks, logits and the largest of them.
  Work DecodeStep(double rows, double keys) const;
  // Logits of `rows` rows and the largest of them.
  Work ArgMax(double rows) const;
  Work Message(double bytes) const;

  // Largest over the ranks.
  int64_t vocab_rows() const { return vocab_; }
  int64_t compute_bytes() const { return compute_bytes_; }

 private:
  void Product(double tokens, double elements, double all_elements, Work& work) const;
  void Block(int64_t layer, double tokens, double tail_tokens, double pairs, double attention_rate, Work& work) const;
  void Mixture(const sharding::MoeSpec& moe, double tokens, Work& work) const;
  void Elementwise(double bytes, Work& work) const;

  const sharding::ModelConfig& config_;
  const Machine& machine_;
  int64_t compute_bytes_;
  int64_t ranks_;
  // Largest over the ranks, then the sum over them (copies of KV heads counted each time).
  int64_t heads_ = 0, kv_heads_ = 0, mlp_ = 0, expert_ = 0, shared_ = 0, vocab_ = 0;
  int64_t all_heads_ = 0, all_kv_heads_ = 0, all_mlp_ = 0, all_expert_ = 0, all_shared_ = 0, all_vocab_ = 0;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_DECODER_COST_H_
