// Plans against closed forms: counts of parameters, 2 FLOPs a parameter and token, and what must hold for any number of ranks.
#include "jobs/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jobs/plan/decoder_cost.h"
#include "jobs/plan/weight_memory.h"
#include "sharding/dtype.h"
#include "sharding/memory_rules.h"
#include "tests/jobs/plan_fixture.h"
#include "tests/jobs/selection_table.h"

namespace bearing::jobs {
namespace {

using ::testing::HasSubstr;

TEST(PlanWeightsTest, EqualTheParametersOfKnownModels) {
  std::ifstream file(ConfigPath("facts"));
  const nlohmann::json facts = nlohmann::json::parse(file);
  for (const char* name : {"Meta-Llama-3-70B-Instruct", "Llama-2-70b-chat-hf", "Qwen2.5-72B-Instruct", "Yi-34B-Chat",
                           "SmolLM2-135M", "gemma-2-9b-it", "Mixtral-8x7B-Instruct-v0.1", "Qwen1.5-MoE-A2.7B-Chat"}) {
    const PlanModel model = LoadPlanModel(name);
    const int64_t parameters = facts.at(std::string(name) + ".json").at("parameters").get<int64_t>();
    EXPECT_EQ(NumParameters(model.layout), parameters) << name;
    HoldingTypes types;
    types.stored_bytes = sharding::DTypeSize(model.config.dtype);
    const sharding::ShardPlan whole = Shards(model, 1);
    EXPECT_EQ(WeightMemoryOf(model.config, model.layout, whole.ranks[0], types).stored, parameters * types.stored_bytes)
        << name;
    // Any number of ranks, odd ones too: the planner's slices are the ShardPlan's.
    for (const int64_t ranks : {2, 3, 5, 7, 8}) {
      for (const sharding::RankPlan& rank : Shards(model, ranks).ranks) {
        EXPECT_EQ(WeightMemoryOf(model.config, model.layout, rank, types).stored, rank.weight_bytes) << name << " " << ranks;
      }
    }
  }
}

TEST(PlanWeightsTest, ATiedModelHoldsItsMatrixInBothForms) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const int64_t vocabulary = model.config.vocab_size * model.config.d_model;
  const int64_t norms = (2 * model.config.num_layers() + 1) * model.config.d_model;
  const int64_t products = NumParameters(model.layout) - vocabulary - norms;
  const sharding::RankPlan rank = Shards(model, 1).ranks[0];
  const HoldingTypes float32 = {.stored_bytes = 2, .compute_bytes = 4, .product_bytes = 4, .packed = false};
  EXPECT_EQ(WeightMemoryOf(model.config, model.layout, rank, float32).held, products * 4 + norms * 4 + vocabulary * (2 + 4));
  const HoldingTypes plain = {.stored_bytes = 2, .compute_bytes = 2, .product_bytes = 2, .packed = false};
  EXPECT_EQ(WeightMemoryOf(model.config, model.layout, rank, plain).held, products * 2 + norms * 4 + vocabulary * 2);
  const HoldingTypes packed = {.stored_bytes = 2, .compute_bytes = 2, .product_bytes = 2, .packed = true};
  EXPECT_EQ(WeightMemoryOf(model.config, model.layout, rank, packed).held, products * 2 + norms * 4 + vocabulary * (2 + 2));
}

TEST(PlanFlopsTest, ADenseForwardIsTwoAParameterAndToken) {
  for (const char* name : {"Meta-Llama-3-70B-Instruct", "Yi-34B-Chat"}) {
    const PlanModel model = LoadPlanModel(name);
    const Machine machine = TestMachine();
    const int64_t vocabulary = model.config.vocab_size * model.config.d_model;
    const int64_t norms = (2 * model.config.num_layers() + 1) * model.config.d_model;
    const auto multiplied = static_cast<double>(NumParameters(model.layout) - vocabulary - norms);
    // All tokens are read, and nothing is attended to: what is left is the products.
    const Batch batch{.tokens = 1000, .reads = 1000, .pairs = 0, .read_pairs = 0};
    for (const int64_t ranks : {1, 3, 8}) {
      const sharding::ShardPlan shards = Shards(model, ranks);
      const DecoderCost decoder(model.config, shards, machine, 2);
      Work work = decoder.Run(batch);
      work.Add(decoder.Probabilities(1000));
      EXPECT_NEAR(work.flops / (2 * 1000 * multiplied), 1.0, 1e-9) << name << " ranks=" << ranks;
    }
    // More ranks than KV heads: each copy is computed too.
    const sharding::ShardPlan many = Shards(model, 2 * model.config.layers[0].attention.num_kv_heads);
    Work work = DecoderCost(model.config, many, machine, 2).Run(batch);
    work.Add(DecoderCost(model.config, many, machine, 2).Probabilities(1000));
    EXPECT_GT(work.flops, 2 * 1000 * multiplied * 1.001);
  }
}

TEST(PlanFlopsTest, AMixtureCountsTheExpertsOfAToken) {
  const PlanModel model = LoadPlanModel("Mixtral-8x7B-Instruct-v0.1");
  const sharding::LayerSpec& layer = model.config.layers[0];
  const double d = static_cast<double>(model.config.d_model);
  const double attention = d * 128 * static_cast<double>(2 * layer.attention.num_heads + 2 * layer.attention.num_kv_heads);
  const double experts = 3 * d * static_cast<double>(layer.moe.expert_size * layer.moe.top_k) + d * 8;
  const sharding::ShardPlan shards = Shards(model, 1);
  const Machine machine = TestMachine();
  const Work work = DecoderCost(model.config, shards, machine, 2).Blocks({.tokens = 100, .reads = 100}, 0, 1);
  EXPECT_NEAR(work.flops, 2 * 100 * (attention + experts), 1);
}

TEST(PlanMessagesTest, TwoABlockAndOneForTheEmbedding) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const Machine machine = TestMachine();
  const Batch batch{.tokens = 100, .reads = 10, .pairs = 1e4, .read_pairs = 1e3};
  const sharding::ShardPlan two = Shards(model, 2);
  const Work work = DecoderCost(model.config, two, machine, 4).Run(batch);
  const int64_t layers = model.config.num_layers();
  EXPECT_EQ(work.messages, 1 + 2 * layers);
  // In the last block only the rows that are read are sent.
  EXPECT_EQ(work.message_bytes, static_cast<double>((100 * (1 + 2 * (layers - 1)) + 10 * 2) * model.config.d_model * 4));
  const sharding::ShardPlan one = Shards(model, 1);
  EXPECT_EQ(DecoderCost(model.config, one, machine, 4).Run(batch).messages, 0);
}

TEST(PlanTest, MoreRanksHoldLessAndMultiplyFaster) {
  const PlanModel model = LoadPlanModel("Meta-Llama-3-70B-Instruct");
  const Machine machine = TestMachine();
  Plan before;
  for (const int64_t ranks : {1, 2, 3, 4, 7, 8, 16, 64}) {
    const auto plan = MakePlan(model.config, model.layout, TestWorkload(model.config), machine, Request(ranks));
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    if (ranks > 1) {
      EXPECT_LT(plan->weights.held, before.weights.held) << ranks;
      EXPECT_LT(plan->peak_bytes, before.peak_bytes) << ranks;
      EXPECT_LE(plan->kv_bytes, before.kv_bytes) << ranks;
      const auto products = [](const Plan& p) { return p.stages[2].cost.work.product_seconds; };
      EXPECT_LT(products(*plan), products(before)) << ranks;
    }
    EXPECT_GE(plan->worst_seconds, plan->seconds);
    before = *plan;
  }
}

TEST(PlanTest, AJobThatDoesNotFitNamesTheSmallestGroup) {
  const PlanModel model = LoadPlanModel("Meta-Llama-3-70B-Instruct");
  const Machine machine = *MachineProfile("h100", "bfloat16", 0.5);
  const Workload workload = TestWorkload(model.config);
  const auto alone = MakePlan(model.config, model.layout, workload, machine, Request(1));
  ASSERT_TRUE(alone.ok());
  EXPECT_FALSE(alone->fits());
  // 141 GB of weights, 85.9 GB a rank: two hold the weights.
  ASSERT_TRUE(alone->smallest_ranks.has_value());
  EXPECT_EQ(*alone->smallest_ranks, 2);
  EXPECT_TRUE(MakePlan(model.config, model.layout, workload, machine, Request(2))->fits());
  EXPECT_TRUE(alone->streamed.fits);
  EXPECT_LT(alone->streamed.bytes, alone->peak_bytes / 5);
  EXPECT_GT(alone->streamed.bytes, alone->kv_bytes);
  // Each step of a completion is a reading.
  EXPECT_GE(alone->streamed.weight_readings, static_cast<double>(workload.max_new_tokens));
  Machine tiny = machine;
  tiny.memory_bytes_per_rank = int64_t{1} << 20;
  EXPECT_FALSE(MakePlan(model.config, model.layout, workload, tiny, Request(1))->smallest_ranks.has_value());
}

// A processor without bf16 arithmetic holds resident weights in fp32; streamed ones stay in bf16 but for a block of 64 MiB.
TEST(PlanTest, StreamedWeightsAreNotWidenedWhole) {
  const PlanModel model = LoadPlanModel("Meta-Llama-3-70B-Instruct");
  Machine plain = *MachineProfile("h100", "bfloat16", 0.5);
  Machine widens = plain;
  widens.gemm_path = "widened-packed";
  const Workload workload = TestWorkload(model.config);
  const auto before = MakePlan(model.config, model.layout, workload, plain, Request(8));
  const auto after = MakePlan(model.config, model.layout, workload, widens, Request(8));
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_GT(after->weights.held, before->weights.held * 19 / 10);
  const int64_t activations = after->stages[after->fullest].cost.memory.activations;
  EXPECT_LE(after->streamed.bytes, before->streamed.bytes + (64 << 20) + activations);
}

TEST(PlanTest, RanksThatTheModelDoesNotHaveAreRefused) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const auto plan = MakePlan(model.config, model.layout, TestWorkload(model.config), TestMachine(), Request(10));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("ranks=10"));
}

TEST(PlanTest, SkippedStagesAreLeftOut) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  PlanRequest request = Request(1);
  request.evaluates = request.edits = false;
  const auto plan = MakePlan(model.config, model.layout, TestWorkload(model.config), TestMachine(), request);
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->stages.size(), 3u);
  EXPECT_EQ(plan->kv_bytes, 0);
  double sum = 0;
  for (const PlannedStage& stage : plan->stages) sum += stage.cost.work.seconds();
  EXPECT_DOUBLE_EQ(plan->seconds, sum);
}

TEST(PlanTest, FormsThatAreNoCheckpointWriteAndRunNoModel) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const auto seconds = [&](bool checkpoint, bool adapter, PlanStage stage) {
    Workload workload = TestWorkload(model.config);
    workload.writes_checkpoint = checkpoint;
    workload.writes_adapter = adapter;
    const auto plan = MakePlan(model.config, model.layout, workload, TestMachine(), Request(1));
    for (const PlannedStage& planned : plan->stages) {
      if (planned.cost.stage == stage) return planned.cost.work.seconds();
    }
    return -1.0;
  };
  EXPECT_EQ(seconds(false, false, PlanStage::kEdit), 0);
  EXPECT_EQ(seconds(false, true, PlanStage::kVerify), 0);
  EXPECT_EQ(seconds(false, true, PlanStage::kChecksums), 0);
  EXPECT_GT(seconds(false, true, PlanStage::kEdit), 0);
  EXPECT_LT(seconds(false, true, PlanStage::kEdit), seconds(true, false, PlanStage::kEdit));
  EXPECT_GT(seconds(true, true, PlanStage::kEdit), seconds(true, false, PlanStage::kEdit));
}

const StageCost* Find(const Plan& plan, PlanStage stage) {
  for (const PlannedStage& planned : plan.stages) {
    if (planned.cost.stage == stage) return &planned.cost;
  }
  return nullptr;
}

// Every token of a text is read, so that all blocks and the vocabulary product run on all of them, under each intervention.
TEST(PlanTest, ScoringTextsIsTwoFlopsAParameterAndToken) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  Workload workload = TestWorkload(model.config);
  constexpr int64_t kTokens = 50, kTexts = 3;
  for (int64_t interventions : {2, 3}) {
    ScoredSet set;
    for (int64_t i = 0; i < kTexts; ++i) set.families.push_back({0, {{kTokens, kTokens}}});
    workload.costs = {interventions, {set}, {}};
    const auto plan = MakePlan(model.config, model.layout, workload, TestMachine(), Request(1));
    ASSERT_TRUE(plan.ok()) << plan.status();
    const StageCost* cost = Find(*plan, PlanStage::kCost);
    ASSERT_NE(cost, nullptr);
    const auto& attention = model.config.layers[0].attention;
    const double norms = static_cast<double>((2 * model.config.num_layers() + 1) * model.config.d_model);
    const double pairs = 4.0 * kTokens * kTokens * static_cast<double>(attention.num_heads * attention.head_dim);
    // The model is tied: its one matrix is used by the vocabulary product.
    const double of_text = 2.0 * kTokens * (static_cast<double>(plan->parameters) - norms) +
                           pairs * static_cast<double>(model.config.num_layers());
    EXPECT_NEAR(cost->work.flops, static_cast<double>(interventions * kTexts) * of_text, 1e-9 * cost->work.flops);
    EXPECT_EQ(cost->passes, 1);
    EXPECT_EQ(cost->memory.logits, interventions * kTexts * kTokens * model.config.vocab_size * 4);
  }
}

TEST(PlanTest, LogitsOfScoredTextsAreHeldInParts) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  Workload workload = TestWorkload(model.config);
  ScoredSet set;
  for (int i = 0; i < 400; ++i) set.families.push_back({0, {{100, 100}}});
  workload.costs = {2, {set}, {}};
  const auto plan = MakePlan(model.config, model.layout, workload, TestMachine(), Request(1));
  EXPECT_LE(Find(*plan, PlanStage::kCost)->memory.logits, 4 * sharding::kLogitElements);
  EXPECT_EQ(Find(*plan, PlanStage::kCost)->passes, 20) << "2048 tokens under each of two interventions";
}

TEST(PlanTest, AJudgesModelIsCountedWithItsOwnSizes) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  Workload workload = TestWorkload(model.config);
  const auto without = MakePlan(model.config, model.layout, workload, TestMachine(), Request(1));
  EXPECT_EQ(Find(*without, PlanStage::kJudge), nullptr);
  const PlanModel judge = LoadPlanModel("Qwen3-0.6B");
  workload.judges = {{"guard", "bfloat16", judge.config, judge.layout, {std::vector<int64_t>(600, 300), 200}}};
  const auto with = MakePlan(model.config, model.layout, workload, TestMachine(), Request(1));
  ASSERT_TRUE(with.ok()) << with.status();
  const StageCost* cost = Find(*with, PlanStage::kJudge);
  ASSERT_NE(cost, nullptr);
  EXPECT_GT(cost->memory.weights, with->weights.held) << "it is the larger model";
  EXPECT_GE(with->peak_bytes, cost->memory.total());
  // 512 + 88 completions, each part with the shared tokens once a pass of 4096.
  EXPECT_EQ(cost->passes, 14 + 3);
  EXPECT_GT(Find(*with, PlanStage::kLoad)->work.disk_bytes, 1.9 * Find(*without, PlanStage::kLoad)->work.disk_bytes)
      << "the job's model is loaded again behind it";
  PlanRequest replicas = Request(2);
  replicas.tensor_parallel = 1;
  const auto shared = MakePlan(model.config, model.layout, workload, TestMachine(), replicas);
  EXPECT_DOUBLE_EQ(Find(*shared, PlanStage::kJudge)->work.product_seconds, cost->work.product_seconds / 2);
  EXPECT_DOUBLE_EQ(Find(*shared, PlanStage::kJudge)->work.disk_seconds, cost->work.disk_seconds);
}

// Four copies on two ranks each: the memory of two ranks, a quarter of the time of the stages that they share.
TEST(PlanTest, ReplicasShareTheWorkNotTheMemory) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const Workload workload = TestWorkload(model.config);
  PlanRequest request = Request(8);
  request.tensor_parallel = 2;
  const auto two = MakePlan(model.config, model.layout, workload, TestMachine(), Request(2));
  const auto eight = MakePlan(model.config, model.layout, workload, TestMachine(), request);
  ASSERT_TRUE(two.ok() && eight.ok()) << two.status() << eight.status();
  EXPECT_EQ(eight->peak_bytes, two->peak_bytes);
  EXPECT_EQ(eight->shards.ranks.size(), 2u);
  for (size_t i = 0; i < two->stages.size(); ++i) {
    const PlanStage stage = two->stages[i].cost.stage;
    const bool alone = stage == PlanStage::kLoad || stage == PlanStage::kVerify || stage == PlanStage::kChecksums;
    EXPECT_NEAR(eight->stages[i].cost.work.seconds(), two->stages[i].cost.work.seconds() / (alone ? 1 : 4), 1e-9)
        << PlanStageName(stage);
    EXPECT_DOUBLE_EQ(eight->stages[i].cost.work.flops, two->stages[i].cost.work.flops);
  }
  request.tensor_parallel = 3;
  EXPECT_EQ(MakePlan(model.config, model.layout, workload, TestMachine(), request).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(PlanTest, ACompleteTableCostsTheWorstCase) {
  const PlanModel model = LoadPlanModel("SmolLM2-135M");
  const Workload workload = WorstCase(TestWorkload(model.config));
  const auto plan = MakePlan(model.config, model.layout, workload, TestMachine(), Request(2));
  EXPECT_DOUBLE_EQ(plan->seconds, plan->worst_seconds);
}

// The defaults stand for the recorded tables: between what they say, and near all of them together.
TEST(PassSharesTest, AreThoseOfTheRecordedTables) {
  size_t scored = 0, induced = 0, close = 0;
  std::vector<double> induce_shares, kl_shares;
  for (const char* name : {"gemma_2b_it", "yi_6b_chat"}) {
    const SelectionTable table = LoadSelectionTable(name);
    SelectionRule rule;
    rule.num_layers = table.num_layers;
    size_t n = 0, passes_induce = 0, passes_kl = 0;
    for (const Candidate& c : table.candidates) {
      if (c.layer == 0 || c.layer >= rule.first_pruned_layer()) continue;
      ++n;
      if (!c.induce.has_value() || *c.induce < rule.induce_min) continue;
      ++passes_induce;
      if (c.kl.has_value() && *c.kl <= rule.kl_max) ++passes_kl;
    }
    induce_shares.push_back(static_cast<double>(passes_induce) / static_cast<double>(n));
    kl_shares.push_back(static_cast<double>(passes_kl) / static_cast<double>(passes_induce));
    scored += n, induced += passes_induce, close += passes_kl;
  }
  const PassShares shares;
  EXPECT_NEAR(shares.induce, static_cast<double>(induced) / static_cast<double>(scored), 0.02);
  EXPECT_NEAR(shares.kl, static_cast<double>(close) / static_cast<double>(induced), 0.02);
  EXPECT_GT(shares.induce, std::min(induce_shares[0], induce_shares[1]));
  EXPECT_LT(shares.induce, std::max(induce_shares[0], induce_shares[1]));
  EXPECT_GT(shares.kl, std::min(kl_shares[0], kl_shares[1]));
  EXPECT_LT(shares.kl, std::max(kl_shares[0], kl_shares[1]));
}

}  // namespace
}  // namespace bearing::jobs
