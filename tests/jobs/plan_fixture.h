// Models by their configs (tests/sharding/data/configs), a round machine and a round workload.
#ifndef BEARING_TESTS_JOBS_PLAN_FIXTURE_H_
#define BEARING_TESTS_JOBS_PLAN_FIXTURE_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "jobs/plan/plan.h"

namespace bearing::jobs {

inline std::string ConfigPath(const std::string& name) {
  return std::string(BEARING_SOURCE_DIR) + "/tests/sharding/data/configs/" + name + ".json";
}

struct PlanModel {
  sharding::ModelConfig config;
  sharding::ParamLayout layout;
};

inline PlanModel LoadPlanModel(const std::string& name) {
  std::ifstream file(ConfigPath(name));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  auto config = sharding::ParseModelConfig(text, name);
  if (!config.ok()) {
    std::cerr << config.status().ToString() << '\n';
    std::abort();
  }
  PlanModel model{*std::move(config), {}};
  model.layout = sharding::ParamLayout::FromConfig(model.config);
  return model;
}

inline sharding::ShardPlan Shards(const PlanModel& model, int64_t ranks) {
  return sharding::MakeShardPlan(model.config, model.layout, ranks).value();
}

// Products at 1 TFLOP/s whatever their size, and round figures for the rest.
inline Machine TestMachine() {
  Machine machine = *MachineProfile("h100", "bfloat16", 0.5);
  machine.name = "round";
  machine.products = {{1, 1e12}};
  machine.memory_bytes_per_s = 1e15;
  machine.memory_bytes_per_rank = int64_t{1} << 42;
  return machine;
}

// 128 training, 32 validation and 64 test prompts a side of 60 tokens, 40 of them shared; 5 positions.
inline Workload TestWorkload(const sharding::ModelConfig& config) {
  Workload workload;
  const auto set = [](size_t prompts) { return PromptLengths{std::vector<int64_t>(prompts, 60), 40}; };
  workload.positive = workload.negative = {set(128), set(32), set(64)};
  workload.positions = 5;
  for (int64_t layer = 1; layer < config.num_layers() * 8 / 10; ++layer) {
    for (int64_t position = 0; position < workload.positions; ++position) workload.layers.push_back(layer);
  }
  workload.to_kl = workload.num_candidates() * 15 / 100;
  workload.to_bypass = workload.num_candidates() / 10;
  workload.max_new_tokens = 64;
  return workload;
}

inline PlanRequest Request(int64_t ranks) {
  PlanRequest request;
  request.job = "test";
  request.dtype = "bfloat16";
  request.ranks = request.tensor_parallel = ranks;
  return request;
}

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_PLAN_FIXTURE_H_
