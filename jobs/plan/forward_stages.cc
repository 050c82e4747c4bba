// The stages that run the model over prompts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "jobs/plan/stage_tally.h"
#include "sharding/memory_rules.h"

namespace bearing::jobs {

namespace {

// Prompts [begin, end) of a set; what all of them share, they share.
PromptLengths Part(const PromptLengths& all, int64_t begin, int64_t end) {
  return {{all.tokens.begin() + begin, all.tokens.begin() + end}, all.shared};
}

}  // namespace

StageCost CollectCost(const StageInputs& in) {
  const Workload& load = *in.workload;
  StageTally tally(PlanStage::kCollect, in);
  const int64_t max_rows = load.max_batch > 0 ? load.max_batch : std::numeric_limits<int64_t>::max();
  const int64_t bytes_a_row = 4 * in.config->num_layers() * load.positions * in.config->d_model;
  const int64_t bytes_of_sum = 2 * bytes_a_row;
  // Each rank keeps and sums its share of the rows.
  const auto share = [&in](int64_t rows) { return (rows + in.ranks - 1) / in.ranks; };
  Work& work = tally.cost().work;
  std::vector<Batch> all;
  int64_t waiting = 0;  // Until the tokens are known.
  int64_t largest = 0;  // Of one batch, else.
  for (const WorkloadSide* side : {&load.positive, &load.negative}) {
    // The first prompts, whose probabilities are computed once more when the tokens are known, and the rest.
    const int64_t first = load.derives_tokens ? std::min(side->train.count(), sharding::kTokenPrompts) : 0;
    std::vector<Batch> train = CutBatches(Part(side->train, 0, first), load.positions, in.budget, max_rows);
    tally.Compute(train, 2);
    const std::vector<Batch> rest =
        CutBatches(Part(side->train, first, side->train.count()), load.positions, in.budget, max_rows);
    tally.Compute(rest, 1);
    train.insert(train.end(), rest.begin(), rest.end());
    all.insert(all.end(), train.begin(), train.end());
    // Captured in one copy and summed in fp64: about 4 movements of 4 bytes a number.
    work.elementwise_seconds += 4.0 * AsReal(share(side->train.count()) * bytes_a_row) / in.machine->elementwise_bytes_per_s;
    waiting += share(first) * bytes_a_row;
    largest = std::max(largest, share(LargestReads(rest)) * bytes_a_row);
    if (in.ranks > 1) {
      work.messages += 1;
      work.message_bytes += AsReal(bytes_of_sum);
      work.message_seconds += in.machine->AllReduceSeconds(in.ranks, AsReal(bytes_of_sum));
    }
    if (!load.filter) continue;
    const std::vector<Batch> validation = CutBatches(side->validation, 1, in.budget, max_rows);
    tally.Compute(validation, 1);
    all.insert(all.end(), validation.begin(), validation.end());
  }
  tally.Took(all);
  // Streamed, captured rows wait for the last layer, in as much memory as the residual streams may have (capture.cc).
  const int64_t waiting_tokens =
      sharding::StreamTokens(*in.config, sharding::ActivationMemory(in.machine->memory_bytes_per_rank));
  const int64_t fitting = std::max<int64_t>(1, waiting_tokens * in.ranks / in.config->num_layers());
  const int64_t positions = load.positions * (load.positive.train.count() + load.negative.train.count());
  StageCost& cost = tally.cost();
  cost.weight_readings = std::max(cost.weight_readings, std::ceil(AsReal(positions) / AsReal(fitting)));
  cost.waiting_bytes += std::min(positions, fitting) * 4 * in.config->num_layers() * in.config->d_model / in.ranks;
  // Two sums, one of them once more while ranks meet, and at the end three means, all fp64.
  tally.cost().memory.residuals = std::max(waiting, largest) + 6 * bytes_of_sum;
  return tally.cost();
}

namespace {

void Induce(const StageInputs& in, StageTally& tally) {
  std::map<int64_t, int64_t> by_layer;
  for (const int64_t layer : in.workload->layers) ++by_layer[layer];
  Work& work = tally.cost().work;
  for (const Batch& base : CutBatches(in.workload->negative.validation, 1, in.budget)) {
    const int64_t at_once = std::max<int64_t>(1, in.budget / base.tokens);
    work.Add(in.decoder->Embed(base));
    int64_t reached = 0;
    std::vector<Batch> branches;
    for (const auto& [layer, candidates] : by_layer) {
      work.Add(in.decoder->Blocks(base, reached, layer));
      reached = layer;
      for (int64_t first = 0; first < candidates; first += at_once) {
        Batch branch;
        for (int64_t i = first; i < std::min(candidates, first + at_once); ++i) branch.Add(base);
        work.Add(in.decoder->Blocks(branch, layer, in.config->num_layers()));
        work.Add(in.decoder->Probabilities(AsReal(branch.reads)));
        branches.push_back(branch);
      }
    }
    tally.Took(branches);
    // The residual stream of the baseline stays beside the branch.
    tally.Needs(ActivationBytes(in, LargestTokens(branches)) + base.tokens * in.config->d_model * in.types.compute_bytes, 0);
  }
}

}  // namespace

StageCost SelectCost(const StageInputs& in) {
  const Workload& load = *in.workload;
  StageTally tally(PlanStage::kSelect, in);
  const std::vector<Batch> positive = CutBatches(load.positive.validation, 1, in.budget);
  const std::vector<Batch> negative = CutBatches(load.negative.validation, 1, in.budget);
  std::vector<Batch> baseline = positive;
  baseline.insert(baseline.end(), negative.begin(), negative.end());
  tally.Passes(baseline);
  Induce(in, tally);
  const std::vector<Batch> kl = PackGroups(negative, load.to_kl, in.budget);
  tally.Passes(kl);
  for (const Batch& batch : kl) tally.cost().work.Add(in.decoder->Kl(AsReal(batch.reads)));
  tally.Passes(PackGroups(positive, load.to_bypass, in.budget));
  // The baseline's distribution stays, of a slab. (That a second slab's is computed anew for KL is not counted.)
  tally.cost().memory.logits += std::min(load.negative.validation.count(), sharding::kSlabRows) * in.decoder->vocab_rows() * 4;
  const int64_t grid = load.positions * in.config->num_layers() * in.config->d_model;
  tally.cost().memory.residuals = grid * (8 + 2 * 4);
  return tally.cost();
}

namespace {

// Rows of several sets that are prefilled and then decode together.
struct Wave {
  Batch prefill;
  int64_t rows = 0;
  double keys = 0;  // Of all rows, after the prefill.
};

std::vector<Wave> WavesOf(const StageInputs& in, const std::vector<const PromptLengths*>& sets) {
  std::vector<Wave> waves;
  for (const PromptLengths* set : sets) {
    for (const Batch& range : CutBatches(*set, 1, in.budget)) {
      if (waves.empty() || waves.back().prefill.tokens + range.tokens > in.budget) waves.emplace_back();
      waves.back().prefill.Add(range);
      waves.back().rows += range.reads;
      waves.back().keys += range.read_pairs;
    }
  }
  return waves;
}

// The sets continued by `steps` tokens.
void Generate(const StageInputs& in, const std::vector<const PromptLengths*>& sets, int64_t steps, StageTally& tally) {
  const int64_t kv_a_token =
      2 * in.config->num_layers() * in.kv_heads * in.config->layers[0].attention.head_dim * in.types.compute_bytes;
  for (const Wave& wave : WavesOf(in, sets)) {
    Work& work = tally.cost().work;
    work.Add(in.decoder->Run(wave.prefill));
    work.Add(in.decoder->ArgMax(AsReal(wave.rows)));
    // A step costs what its keys cost: linear, so the middle step stands for all.
    Work step = in.decoder->DecodeStep(AsReal(wave.rows), wave.keys / AsReal(wave.rows) + AsReal(steps) / 2);
    for (int64_t i = 1; i < steps; ++i) work.Add(step);
    tally.Took({wave.prefill});
    tally.cost().passes += steps - 1;
    tally.cost().weight_readings += AsReal(steps - 1);
    tally.cost().memory.kv = std::max(tally.cost().memory.kv, kv_a_token * (wave.prefill.tokens + wave.rows * steps));
  }
}

// Rows under every intervention at once, and what is made of their logits.
void Score(const StageInputs& in, const ScoredSet& set, int64_t interventions, StageTally& tally) {
  Work& work = tally.cost().work;
  std::vector<Batch> passes;
  int64_t rows = 0;
  for (const ScoredBatch& scored : CutScored(set, std::max<int64_t>(1, in.budget / interventions))) {
    Batch& pass = passes.emplace_back();
    for (int64_t i = 0; i < interventions; ++i) pass.Add(scored.batch);
    work.Add(in.decoder->Run(pass));
    work.Add(in.decoder->Probabilities(AsReal(pass.reads)));
    if (scored.kl_reads > 0) work.Add(in.decoder->Kl(AsReal((interventions - 1) * scored.kl_reads)));
    // Logits are held of some rows at a time, at least one under each intervention.
    const int64_t at_once =
        std::max<int64_t>(1, sharding::kLogitElements / (interventions * std::max<int64_t>(1, in.decoder->vocab_rows())));
    rows = std::max(rows, std::min(pass.reads, interventions * at_once));
  }
  if (!passes.empty()) tally.Took(passes, rows);
}

}  // namespace

StageCost EvaluateCost(const StageInputs& in) {
  StageTally tally(PlanStage::kEvaluate, in);
  const WorkloadSide &positive = in.workload->positive, &negative = in.workload->negative;
  Generate(in, {&positive.test, &positive.test, &negative.test, &negative.test, &negative.test}, in.workload->max_new_tokens,
           tally);
  return tally.cost();
}

StageCost CostsCost(const StageInputs& in) {
  StageTally tally(PlanStage::kCost, in);
  const CostWork& costs = in.workload->costs;
  for (const ScoredSet& set : costs.scored) Score(in, set, costs.interventions, tally);
  for (const GeneratedSet& set : costs.generated) {
    const std::vector<const PromptLengths*> sets(static_cast<size_t>(costs.interventions), &set.prompts);
    Generate(in, sets, set.max_new_tokens, tally);
  }
  return tally.cost();
}

}  // namespace bearing::jobs
