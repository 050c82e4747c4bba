#include "jobs/plan/stage_tally.h"

#include <algorithm>
#include <cmath>

#include "sharding/memory_rules.h"

namespace bearing::jobs {

int64_t LargestTokens(const std::vector<Batch>& batches) {
  int64_t most = 0;
  for (const Batch& batch : batches) most = std::max(most, batch.tokens);
  return most;
}

int64_t LargestReads(const std::vector<Batch>& batches) {
  int64_t most = 0;
  for (const Batch& batch : batches) most = std::max(most, batch.reads);
  return most;
}

StageTally::StageTally(PlanStage stage, const StageInputs& in) : in_(in) {
  cost_.stage = stage;
  cost_.memory.process = in.machine->process_bytes;
  cost_.memory.weights = in.weights.held;
}

void StageTally::Compute(const std::vector<Batch>& batches, int times) {
  for (const Batch& batch : batches) {
    cost_.work.Add(in_.decoder->Run(batch));
    for (int i = 0; i < times; ++i) cost_.work.Add(in_.decoder->Probabilities(static_cast<double>(batch.reads)));
  }
}

void StageTally::Passes(const std::vector<Batch>& batches, int times) {
  Compute(batches, times);
  Took(batches);
}

void StageTally::Took(const std::vector<Batch>& batches) { Took(batches, LargestReads(batches)); }

void StageTally::Took(const std::vector<Batch>& batches, int64_t rows) {
  cost_.passes += static_cast<int64_t>(batches.size());
  Needs(ActivationBytes(in_, LargestTokens(batches)), rows);
  // All of them in one reading of the weights, or in as many as their residual streams need.
  double tokens = 0;
  for (const Batch& batch : batches) tokens += static_cast<double>(batch.tokens);
  if (tokens == 0) return;
  const int64_t waiting = sharding::StreamTokens(*in_.config, sharding::ActivationMemory(in_.machine->memory_bytes_per_rank));
  cost_.weight_readings += std::ceil(tokens / static_cast<double>(waiting));
  const auto most = static_cast<int64_t>(std::min(tokens, static_cast<double>(waiting)));
  cost_.waiting_bytes = std::max(cost_.waiting_bytes, most * 4 * in_.config->d_model);
}

void StageTally::Needs(int64_t activations, int64_t rows) {
  cost_.memory.activations = std::max(cost_.memory.activations, activations);
  cost_.memory.logits = std::max(cost_.memory.logits, rows * in_.decoder->vocab_rows() * 4);
}

}  // namespace bearing::jobs
