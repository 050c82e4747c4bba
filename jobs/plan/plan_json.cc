#include <nlohmann/json.hpp>

#include "jobs/plan/plan.h"

namespace bearing::jobs {
namespace {

nlohmann::json StageJson(const PlannedStage& stage) {
  const Work& work = stage.cost.work;
  const StageMemory& memory = stage.cost.memory;
  return {{"stage", PlanStageName(stage.cost.stage)},
          {"seconds", work.seconds()},
          {"worst_seconds", stage.worst_seconds},
          {"seconds_of",
           {{"products", work.product_seconds},
            {"attention", work.attention_seconds},
            {"elementwise", work.elementwise_seconds},
            {"messages", work.message_seconds},
            {"disk", work.disk_seconds},
            {"other", work.other_seconds}}},
          {"flops", work.flops},
          {"passes", stage.cost.passes},
          {"messages", work.messages},
          {"message_bytes", work.message_bytes},
          {"disk_bytes", work.disk_bytes},
          {"memory_bytes",
           {{"total", memory.total()},
            {"weights", memory.weights},
            {"process", memory.process},
            {"activations", memory.activations},
            {"logits", memory.logits},
            {"residuals", memory.residuals},
            {"kv", memory.kv},
            {"scratch", memory.scratch}}},
          {"weight_readings", stage.cost.weight_readings}};
}

nlohmann::json SetJson(const PromptLengths& lengths) {
  int64_t tokens = 0;
  for (const int64_t one : lengths.tokens) tokens += one;
  return {{"prompts", lengths.count()}, {"tokens", tokens}, {"shared_prefix", lengths.shared}};
}

nlohmann::json WorkloadJson(const Workload& load) {
  nlohmann::json sets;
  for (const auto& [name, side] : {std::pair("positive", &load.positive), std::pair("negative", &load.negative)}) {
    sets[name] = {{"train", SetJson(side->train)}, {"validation", SetJson(side->validation)}, {"test", SetJson(side->test)}};
  }
  return {{"prompts", sets},
          {"positions", load.positions},
          {"candidates", load.num_candidates()},
          {"candidates_to_kl", load.to_kl},
          {"candidates_to_bypass", load.to_bypass},
          {"max_new_tokens", load.max_new_tokens},
          {"tokens_estimated", load.estimated},
          {"tokens_from", load.how}};
}

}  // namespace

nlohmann::json PlanJson(const Plan& plan, const Workload& workload, const Machine& machine) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const sharding::RankPlan& rank : plan.shards.ranks) {
    const auto range = [](const sharding::Range& r) { return nlohmann::json::array({r.begin, r.end}); };
    ranks.push_back({{"heads", range(rank.heads)},
                     {"kv_heads", range(rank.kv_heads)},
                     {"mlp", range(rank.mlp)},
                     {"expert", range(rank.expert)},
                     {"shared_expert", range(rank.shared_expert)},
                     {"vocab", range(rank.vocab)},
                     {"weight_bytes", rank.weight_bytes}});
  }
  nlohmann::json stages = nlohmann::json::array();
  for (const PlannedStage& stage : plan.stages) stages.push_back(StageJson(stage));
  return {{"format", "bearing-plan/1"},
          {"job", plan.request.job},
          {"model",
           {{"family", plan.family},
            {"layers", plan.num_layers},
            {"d_model", plan.d_model},
            {"parameters", plan.parameters},
            {"checkpoint_bytes", plan.checkpoint_bytes},
            {"stored_dtype", plan.stored_dtype}}},
          {"dtype", plan.request.dtype},
          {"replicas", plan.request.replicas()},
          {"ranks", ranks},
          {"weight_bytes", {{"stored", plan.weights.stored}, {"read", plan.weights.read}, {"held", plan.weights.held}}},
          {"kv_bytes", plan.kv_bytes},
          {"residual_bytes", plan.residual_bytes},
          {"token_budget", plan.token_budget},
          {"seconds", plan.seconds},
          {"worst_seconds", plan.worst_seconds},
          {"slowest_stage", PlanStageName(plan.stages[plan.slowest].cost.stage)},
          {"fullest_stage", PlanStageName(plan.stages[plan.fullest].cost.stage)},
          {"peak_bytes", plan.peak_bytes},
          {"available_bytes", plan.available_bytes},
          {"fits", plan.fits()},
          {"smallest_ranks", plan.smallest_ranks.has_value() ? nlohmann::json(*plan.smallest_ranks) : nlohmann::json()},
          {"streamed",
           {{"bytes", plan.streamed.bytes},
            {"fits", plan.streamed.fits},
            {"by_default", plan.streamed.by_default},
            {"weight_readings", plan.streamed.weight_readings},
            {"disk_seconds", plan.streamed.disk_seconds}}},
          {"stages", stages},
          {"workload", WorkloadJson(workload)},
          {"machine", MachineJson(machine)}};
}

}  // namespace bearing::jobs
