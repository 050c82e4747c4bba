#include "jobs/plan/decoder_cost.h"

#include <algorithm>

namespace bearing::jobs {

void Work::ShareOut(int64_t replicas) {
  for (double* part : {&messages, &message_bytes, &product_seconds, &attention_seconds, &elementwise_seconds, &message_seconds,
                       &disk_bytes, &disk_seconds, &other_seconds}) {
    *part /= AsReal(replicas);
  }
}

void Work::Add(const Work& other) {
  flops += other.flops;
  messages += other.messages;
  message_bytes += other.message_bytes;
  product_seconds += other.product_seconds;
  attention_seconds += other.attention_seconds;
  elementwise_seconds += other.elementwise_seconds;
  message_seconds += other.message_seconds;
  disk_bytes += other.disk_bytes;
  disk_seconds += other.disk_seconds;
  other_seconds += other.other_seconds;
}

DecoderCost::DecoderCost(const sharding::ModelConfig& config, const sharding::ShardPlan& plan, const Machine& machine,
                         int64_t compute_bytes)
    : config_(config), machine_(machine), compute_bytes_(compute_bytes), ranks_(plan.tp()) {
  const auto take = [](const sharding::Range& range, int64_t& most, int64_t& all) {
    most = std::max(most, range.size());
    all += range.size();
  };
  for (const sharding::RankPlan& rank : plan.ranks) {
    take(rank.heads, heads_, all_heads_);
    take(rank.kv_heads, kv_heads_, all_kv_heads_);
    take(rank.mlp, mlp_, all_mlp_);
    take(rank.expert, expert_, all_expert_);
    take(rank.shared_expert, shared_, all_shared_);
    take(rank.vocab, vocab_, all_vocab_);
  }
}

Work DecoderCost::Message(double bytes) const {
  Work work;
  if (ranks_ == 1) return work;
  work.messages = 1;
  work.message_bytes = bytes;
  work.message_seconds = machine_.AllReduceSeconds(ranks_, bytes);
  return work;
}

void DecoderCost::Product(double tokens, double elements, double all_elements, Work& work) const {
  if (tokens <= 0 || elements <= 0) return;
  work.flops += 2 * tokens * all_elements;
  work.product_seconds += std::max(2 * tokens * elements / machine_.ProductFlopsPerSecond(tokens),
                                   elements * AsReal(compute_bytes_) / machine_.memory_bytes_per_s);
}

void DecoderCost::Elementwise(double bytes, Work& work) const {
  work.elementwise_seconds += bytes / machine_.elementwise_bytes_per_s;
}

void DecoderCost::Mixture(const sharding::MoeSpec& moe, double tokens, Work& work) const {
  const double d = AsReal(config_.d_model);
  // Router and shared gate are whole on every rank.
  const double router = d * AsReal(moe.num_experts) + (moe.shared_size > 0 ? d : 0);
  Product(tokens, router, router * AsReal(ranks_), work);
  Product(tokens, 3 * d * AsReal(shared_), 3 * d * AsReal(all_shared_), work);
  // As if the tokens spread evenly over the experts.
  const double active = std::min(AsReal(moe.num_experts), tokens * AsReal(moe.top_k));
  const double tokens_of_one = tokens * AsReal(moe.top_k) / active;
  Work one;
  Product(tokens_of_one, 3 * d * AsReal(expert_), 3 * d * AsReal(all_expert_), one);
  work.flops += active * one.flops;
  work.product_seconds += active * one.product_seconds;
  // Rows gathered, and added in fp32.
  Elementwise(tokens * AsReal(moe.top_k) * (d * AsReal(compute_bytes_) * 3 + 8 * d), work);
}

void DecoderCost::Block(int64_t layer, double tokens, double tail_tokens, double pairs, double attention_rate,
                        Work& work) const {
  const sharding::LayerSpec& spec = config_.layers[layer];
  const double d = AsReal(config_.d_model);
  const double e = AsReal(spec.attention.head_dim);
  const double s = AsReal(compute_bytes_);
  Product(tokens, d * AsReal(heads_ + 2 * kv_heads_) * e, d * AsReal(all_heads_ + 2 * all_kv_heads_) * e, work);
  work.flops += 4 * pairs * AsReal(all_heads_) * e;
  work.attention_seconds += 4 * pairs * AsReal(heads_) * e / attention_rate;
  Product(tail_tokens, d * AsReal(heads_) * e, d * AsReal(all_heads_) * e, work);
  Elementwise(s * (2 * tokens * d + 2 * tokens * AsReal(heads_ + kv_heads_) * e + 3 * tail_tokens * d), work);
  double columns = AsReal(mlp_);
  if (spec.moe.num_experts > 0) {
    Mixture(spec.moe, tail_tokens, work);
    columns = AsReal(expert_ * spec.moe.top_k + shared_);
  } else {
    Product(tail_tokens, 3 * d * AsReal(mlp_), 3 * d * AsReal(all_mlp_), work);
  }
  Elementwise(s * (5 * tail_tokens * d + 3 * tail_tokens * columns), work);
  if (spec.attention.qk_norm) Elementwise(s * 2 * tokens * AsReal(heads_ + kv_heads_) * e, work);
  if (spec.post_norms) Elementwise(s * 4 * tail_tokens * d, work);
  for (int i = 0; i < 2; ++i) work.Add(Message(tail_tokens * d * s));
}

Work DecoderCost::Embed(const Batch& batch) const {
  Work work;
  const double bytes = AsReal(batch.tokens) * AsReal(config_.d_model) * AsReal(compute_bytes_);
  Elementwise(5 * bytes, work);
  work.Add(Message(bytes));
  return work;
}

Work DecoderCost::Blocks(const Batch& batch, int64_t first, int64_t end) const {
  Work work;
  for (int64_t layer = first; layer < end; ++layer) {
    const bool only_read = layer + 1 == config_.num_layers();
    Block(layer, AsReal(batch.tokens), AsReal(only_read ? batch.reads : batch.tokens),
          only_read ? batch.read_pairs : batch.pairs, machine_.attention_flops_per_s, work);
  }
  return work;
}

Work DecoderCost::Run(const Batch& batch) const {
  Work work = Embed(batch);
  work.Add(Blocks(batch, 0, config_.num_layers()));
  return work;
}

Work DecoderCost::Probabilities(double rows) const {
  Work work;
  const double d = AsReal(config_.d_model);
  Product(rows, d * AsReal(vocab_), d * AsReal(all_vocab_), work);
  work.elementwise_seconds += rows * AsReal(vocab_) / machine_.vocabulary_elements_per_s;
  for (const double bytes : {4.0, 8.0, 8.0}) work.Add(Message(bytes * rows));
  return work;
}

Work DecoderCost::Kl(double rows) const {
  Work work;
  // Two logarithms where the softmax has an exponential.
  work.elementwise_seconds += 2 * rows * AsReal(vocab_) / machine_.vocabulary_elements_per_s;
  work.Add(Message(8 * rows));
  return work;
}

Work DecoderCost::ArgMax(double rows) const {
  Work work;
  const double d = AsReal(config_.d_model);
  Product(rows, d * AsReal(vocab_), d * AsReal(all_vocab_), work);
  // One reading of fp32.
  work.elementwise_seconds += 4 * rows * AsReal(vocab_) / machine_.elementwise_bytes_per_s;
  work.Add(Message(16 * rows));
  return work;
}

Work DecoderCost::DecodeStep(double rows, double keys) const {
  Batch batch;
  batch.tokens = static_cast<int64_t>(rows);
  Work work = Embed(batch);
  for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
    Block(layer, rows, rows, rows * keys, machine_.decode_attention_flops_per_s, work);
  }
  work.Add(ArgMax(rows));
  return work;
}

}  // namespace bearing::jobs
