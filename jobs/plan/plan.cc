#include "jobs/plan/plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/dtype.h"
#include "sharding/memory_rules.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

// No model here has more heads.
constexpr int64_t kMostRanks = 1024;

StageInputs InputsOf(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                     const sharding::ShardPlan& shards, const Workload& workload, const Machine& machine,
                     const std::string& dtype, const DecoderCost& decoder) {
  StageInputs inputs;
  inputs.config = &config;
  inputs.workload = &workload;
  inputs.machine = &machine;
  inputs.decoder = &decoder;
  inputs.types = HoldingOf(config, dtype, machine);
  inputs.edit = EditSizeOf(layout, inputs.types.stored_bytes);
  inputs.ranks = shards.tp();
  inputs.budget = sharding::TokenBudget(config, sharding::ActivationMemory(machine.memory_bytes_per_rank));
  int64_t top_k = 0;
  for (const sharding::LayerSpec& layer : config.layers) top_k = std::max(top_k, layer.moe.top_k);
  inputs.kv_heads = inputs.heads = inputs.mlp_columns = 0;
  const HoldingTypes streamed = StreamedHoldingOf(inputs.types);
  const int64_t block = streamed.product_bytes < inputs.types.product_bytes ? 4 * sharding::kWidenedBlockElements : 0;
  for (const sharding::RankPlan& rank : shards.ranks) {
    const WeightMemory weights = WeightMemoryOf(config, layout, rank, inputs.types);
    const auto take = [](int64_t value, int64_t& most) { most = std::max(most, value); };
    take(weights.stored, inputs.weights.stored);
    take(weights.read, inputs.weights.read);
    take(weights.read_layers, inputs.weights.read_layers);
    take(weights.held, inputs.weights.held);
    take(weights.loading, inputs.weights.loading);
    take(weights.largest_layer, inputs.weights.largest_layer);
    take(weights.ends, inputs.weights.ends);
    const WeightMemory slices = WeightMemoryOf(config, layout, rank, streamed);
    take(slices.ends + 2 * slices.largest_layer + block, inputs.streamed_slices);
    take(rank.kv_heads.size(), inputs.kv_heads);
    take(rank.heads.size(), inputs.heads);
    take(std::max({rank.mlp.size(), rank.shared_expert.size(), rank.expert.size()}), inputs.mlp_columns);
  }
  return inputs;
}

// Replicas divide the prompts, candidates and completions, and all ranks the tensors to edit. Each loads the model for itself.
bool IsShared(PlanStage stage) {
  return stage == PlanStage::kCollect || stage == PlanStage::kSelect || stage == PlanStage::kEvaluate ||
         stage == PlanStage::kCost || stage == PlanStage::kEdit;
}

std::vector<PlanStage> StagesOf(const PlanRequest& request, const Workload& workload) {
  std::vector<PlanStage> stages = {PlanStage::kLoad, PlanStage::kCollect, PlanStage::kSelect};
  if (request.evaluates) stages.push_back(PlanStage::kEvaluate);
  if (!workload.judges.empty()) stages.push_back(PlanStage::kJudge);
  if (!workload.costs.empty()) stages.push_back(PlanStage::kCost);
  if (request.edits) stages.insert(stages.end(), {PlanStage::kEdit, PlanStage::kVerify, PlanStage::kChecksums});
  return stages;
}

// All judges with models, one after the other, each cut like the job's model. Of streamed weights only the job's are counted.
absl::StatusOr<StageCost> JudgesCost(const Workload& workload, const Machine& machine, int64_t tensor_parallel,
                                     int64_t replicas) {
  StageCost all;
  all.stage = PlanStage::kJudge;
  for (const JudgeWork& judge : workload.judges) {
    const absl::StatusOr<sharding::ShardPlan> shards =
        sharding::MakeShardPlan(judge.config, judge.layout, static_cast<int>(tensor_parallel));
    if (!shards.ok()) {
      return absl::Status(shards.status().code(),
                          absl::StrCat("the model of judge ", judge.name, ": ", std::string(shards.status().message())));
    }
    const DecoderCost decoder(judge.config, *shards, machine, HoldingOf(judge.config, judge.dtype, machine).compute_bytes);
    const StageInputs inputs = InputsOf(judge.config, judge.layout, *shards, workload, machine, judge.dtype, decoder);
    const StageCost cost = CostOfJudge(judge, inputs, replicas);
    all.work.Add(cost.work);
    all.passes += cost.passes;
    if (cost.memory.total() > all.memory.total()) all.memory = cost.memory;
  }
  return all;
}

// The peak of one rank over all stages with so many ranks; the error of MakeShardPlan.
absl::StatusOr<int64_t> PeakBytes(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                                  const Workload& workload, const Machine& machine, const PlanRequest& request, int64_t ranks) {
  BEARING_ASSIGN_OR_RETURN(const sharding::ShardPlan shards, sharding::MakeShardPlan(config, layout, ranks));
  const HoldingTypes types = HoldingOf(config, request.dtype, machine);
  const DecoderCost decoder(config, shards, machine, types.compute_bytes);
  const StageInputs inputs = InputsOf(config, layout, shards, workload, machine, request.dtype, decoder);
  int64_t peak = 0;
  for (const PlanStage stage : StagesOf(request, workload)) {
    if (stage == PlanStage::kJudge) {
      BEARING_ASSIGN_OR_RETURN(const StageCost judges, JudgesCost(workload, machine, ranks, 1));
      peak = std::max(peak, judges.memory.total());
    } else {
      peak = std::max(peak, CostOfStage(stage, inputs).memory.total());
    }
  }
  return peak;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                              const Workload& workload, const Machine& machine, const PlanRequest& request) {
  Plan plan;
  plan.request = request;
  plan.family = config.family;
  plan.num_layers = config.num_layers();
  plan.d_model = config.d_model;
  plan.parameters = NumParameters(layout);
  plan.stored_dtype = std::string(sharding::DTypeName(config.dtype));
  plan.checkpoint_bytes = plan.parameters * sharding::DTypeSize(config.dtype);
  if (request.tensor_parallel < 1 || request.ranks % request.tensor_parallel != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the number of ranks is no multiple of those that hold a copy of the model:", " ranks=", request.ranks,
                     " tensor_parallel=", request.tensor_parallel));
  }
  BEARING_ASSIGN_OR_RETURN(plan.shards, sharding::MakeShardPlan(config, layout, request.tensor_parallel));
  const DecoderCost decoder(config, plan.shards, machine, HoldingOf(config, request.dtype, machine).compute_bytes);
  const StageInputs inputs = InputsOf(config, layout, plan.shards, workload, machine, request.dtype, decoder);
  const Workload worst = WorstCase(workload);
  StageInputs worst_inputs = inputs;
  worst_inputs.workload = &worst;
  plan.weights = inputs.weights;
  plan.token_budget = inputs.budget;
  plan.available_bytes = machine.memory_bytes_per_rank;

  for (const PlanStage stage : StagesOf(request, workload)) {
    PlannedStage planned;
    Work worst_work;
    if (stage == PlanStage::kJudge) {
      BEARING_ASSIGN_OR_RETURN(planned.cost, JudgesCost(workload, machine, request.tensor_parallel, request.replicas()));
      worst_work = planned.cost.work;
    } else {
      planned.cost = CostOfStage(stage, inputs);
      worst_work = CostOfStage(stage, worst_inputs).work;
    }
    if (IsShared(stage)) {
      planned.cost.work.ShareOut(request.replicas());
      worst_work.ShareOut(request.replicas());
    }
    planned.worst_seconds = worst_work.seconds();
    plan.seconds += planned.cost.work.seconds();
    plan.worst_seconds += planned.worst_seconds;
    plan.streamed.weight_readings += planned.cost.weight_readings;
    plan.kv_bytes = std::max(plan.kv_bytes, planned.cost.memory.kv);
    plan.residual_bytes = std::max(plan.residual_bytes, planned.cost.memory.residuals);
    plan.stages.push_back(planned);
  }
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    if (plan.stages[i].cost.work.seconds() > plan.stages[plan.slowest].cost.work.seconds()) plan.slowest = i;
    if (plan.stages[i].cost.memory.total() > plan.stages[plan.fullest].cost.memory.total()) plan.fullest = i;
  }
  plan.peak_bytes = plan.stages[plan.fullest].cost.memory.total();
  // Of a stage, everything but its weights and the loading of them stays.
  for (const PlannedStage& stage : plan.stages) {
    const StageMemory& memory = stage.cost.memory;
    plan.streamed.bytes =
        std::max(plan.streamed.bytes, memory.total() - memory.weights - memory.scratch + stage.cost.waiting_bytes);
  }
  plan.streamed.bytes += inputs.streamed_slices;
  for (const sharding::RankPlan& rank : plan.shards.ranks) {
    const int64_t bytes = sharding::CountElements(layout, rank).resident * inputs.types.product_bytes;
    if (!sharding::FitsResident(bytes, plan.available_bytes)) plan.streamed.by_default = true;
  }
  plan.streamed.fits = plan.streamed.bytes <= plan.available_bytes;
  plan.streamed.disk_seconds =
      plan.streamed.weight_readings * static_cast<double>(plan.weights.read_layers) / machine.disk_bytes_per_s_cold();
  for (int64_t ranks = 1; !plan.fits() && ranks <= kMostRanks; ++ranks) {
    const absl::StatusOr<int64_t> peak = PeakBytes(config, layout, workload, machine, request, ranks);
    if (!peak.ok()) break;  // More ranks cannot be cut either.
    if (*peak > plan.available_bytes) continue;
    plan.smallest_ranks = ranks;
    break;
  }
  return plan;
}

}  // namespace bearing::jobs
