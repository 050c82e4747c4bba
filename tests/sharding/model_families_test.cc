// Every family's config becomes the layers it stands for; every real config of tests/sharding/data/configs is accepted,
// planned, and has as many parameters as facts.json says.
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "sharding/concat.h"
#include "sharding/model_config.h"
#include "sharding/model_family.h"
#include "sharding/param_layout.h"
#include "sharding/posix_file.h"
#include "sharding/shard_plan.h"
#include "tests/sharding/status_testing.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::Succeeds;
using nlohmann::json;

// The least that every family needs.
json Base(const std::string& model_type) {
  const ModelFamily* family = FindModelFamily(model_type);
  return {{"model_type", model_type},
          {"architectures", {std::string(family->architecture)}},
          {"hidden_size", 48},
          {"intermediate_size", 80},
          {"num_attention_heads", 6},
          {"num_key_value_heads", 3},
          {"num_hidden_layers", 6},
          {"vocab_size", 100},
          {"head_dim", 8},
          {"max_position_embeddings", 512}};
}

absl::StatusOr<ModelConfig> Parse(const json& config) { return ParseModelConfig(config.dump(), "config.json"); }

std::vector<int64_t> Windows(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const LayerSpec& layer : config.layers) windows.push_back(layer.attention.sliding_window);
  return windows;
}

TEST(ModelFamiliesTest, MistralSlidesOnEveryLayerUnlessTheWindowIsNull) {
  json config = Base("mistral");
  EXPECT_EQ(Windows(*Parse(config)), std::vector<int64_t>(6, 4096));  // The class default.
  config["sliding_window"] = 16;
  EXPECT_EQ(Windows(*Parse(config)), std::vector<int64_t>(6, 16));
  config["sliding_window"] = nullptr;
  EXPECT_EQ(Windows(*Parse(config)), std::vector<int64_t>(6, 0));
}

TEST(ModelFamiliesTest, QwenSlidesFromALayerOnWhenToldTo) {
  json config = Base("qwen2");
  config.update({{"sliding_window", 16}, {"max_window_layers", 4}});
  EXPECT_EQ(Windows(*Parse(config)), std::vector<int64_t>(6, 0));
  config["use_sliding_window"] = true;
  EXPECT_EQ(Windows(*Parse(config)), (std::vector<int64_t>{0, 0, 0, 0, 16, 16}));
  config["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                           "full_attention",    "full_attention", "full_attention"};
  EXPECT_EQ(Windows(*Parse(config)), (std::vector<int64_t>{16, 0, 0, 0, 0, 0}));
}

TEST(ModelFamiliesTest, Gemma2HasPostNormsSoftcapsAndEvenWindows) {
  json config = Base("gemma2");
  config.update({{"hidden_activation", "gelu_pytorch_tanh"}, {"query_pre_attn_scalar", 144}, {"sliding_window", 8}});
  const absl::StatusOr<ModelConfig> gemma = Parse(config);
  ASSERT_TRUE(Succeeds(gemma));
  EXPECT_EQ(Windows(*gemma), (std::vector<int64_t>{8, 0, 8, 0, 8, 0}));
  EXPECT_TRUE(gemma->norm.unit_offset);
  EXPECT_TRUE(gemma->tied_embeddings);
  EXPECT_DOUBLE_EQ(gemma->embedding_scale, std::sqrt(48.0));
  EXPECT_DOUBLE_EQ(gemma->final_logit_softcap, 30.0);
  EXPECT_DOUBLE_EQ(gemma->layers[0].attention.logit_softcap, 50.0);
  EXPECT_DOUBLE_EQ(gemma->layers[0].attention.scale, 1.0 / 12.0);
  EXPECT_EQ(gemma->layers[0].mlp.activation, Activation::kGeluTanh);
  const ParamLayout layout = ParamLayout::FromConfig(*gemma);
  EXPECT_EQ(layout.Find(ParamRole::kAttentionPostNorm, 0)->name, "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(layout.Find(ParamRole::kMlpNorm, 0)->name, "model.layers.0.pre_feedforward_layernorm.weight");
  EXPECT_EQ(layout.Find(ParamRole::kDown, 0)->norm_behind, ParamRole::kMlpPostNorm);
  EXPECT_EQ(layout.Find(ParamRole::kAttentionOut, 0)->norm_behind, ParamRole::kAttentionPostNorm);
  EXPECT_FALSE(layout.Find(ParamRole::kEmbedding)->norm_behind.has_value());

  config["attn_logit_softcapping"] = nullptr;
  EXPECT_DOUBLE_EQ(Parse(config)->layers[0].attention.logit_softcap, 0.0);
}

TEST(ModelFamiliesTest, Gemma3RotatesItsSlidingLayersByATableOfTheirOwn) {
  json config = Base("gemma3_text");
  config.update({{"hidden_activation", "gelu_pytorch_tanh"},
                 {"sliding_window", 8},
                 {"sliding_window_pattern", 3},
                 {"rope_theta", 1e6},
                 {"rope_local_base_freq", 1e4},
                 {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}});
  const absl::StatusOr<ModelConfig> gemma = Parse(config);
  ASSERT_TRUE(Succeeds(gemma));
  EXPECT_EQ(Windows(*gemma), (std::vector<int64_t>{8, 8, 0, 8, 8, 0}));
  ASSERT_EQ(gemma->ropes.size(), 2u);
  EXPECT_EQ(gemma->ropes[0].scaling, RopeScaling::kLinear);
  EXPECT_DOUBLE_EQ(gemma->ropes[0].theta, 1e6);
  EXPECT_EQ(gemma->ropes[1].scaling, RopeScaling::kNone);
  EXPECT_DOUBLE_EQ(gemma->ropes[1].theta, 1e4);
  EXPECT_EQ(gemma->layers[0].attention.rope, 1);
  EXPECT_EQ(gemma->layers[2].attention.rope, 0);
  EXPECT_TRUE(gemma->layers[0].attention.qk_norm);
}

TEST(ModelFamiliesTest, Gemma3InItsWrapperIsTheTextModelWithAPrefix) {
  json text = Base("gemma3_text");
  text.erase("architectures");
  text["sliding_window"] = 8;
  const json config = {{"model_type", "gemma3"},   {"architectures", {"Gemma3ForConditionalGeneration"}},
                       {"text_config", text},      {"vision_config", {{"hidden_size", 4}}},
                       {"eos_token_id", {1, 106}}, {"torch_dtype", "bfloat16"}};
  const absl::StatusOr<ModelConfig> gemma = Parse(config);
  ASSERT_TRUE(Succeeds(gemma));
  EXPECT_TRUE(gemma->wrapped);
  EXPECT_EQ(gemma->dtype, DType::kBF16);
  EXPECT_EQ(gemma->eos_token_ids, (std::vector<int64_t>{1, 106}));

  // Both spellings of the prefix are found; the vision tower is left alone.
  const ParamLayout planned = ParamLayout::FromConfig(*gemma);
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    std::vector<DiskTensor> disk;
    for (const ParamEntry& entry : planned.entries()) {
      disk.push_back({prefix + entry.name.substr(std::string("language_model.model.").size()), DType::kBF16, entry.shape});
    }
    disk.push_back({"vision_tower.patch.weight", DType::kBF16, {4, 3, 2, 2}});
    const absl::StatusOr<ParamLayout> layout = ParamLayout::Match(*gemma, disk);
    ASSERT_TRUE(Succeeds(layout));
    EXPECT_EQ(layout->Find(ParamRole::kEmbedding)->name, prefix + "embed_tokens.weight");
  }
}

TEST(ModelFamiliesTest, Qwen1IsReadInItsOwnKeysAndFusedTensors) {
  const json config = {{"model_type", "qwen"},
                       {"architectures", {"QWenLMHeadModel"}},
                       {"auto_map", {{"AutoModelForCausalLM", "modeling_qwen.QWenLMHeadModel"}}},
                       {"hidden_size", 48},
                       {"intermediate_size", 160},
                       {"num_attention_heads", 6},
                       {"num_hidden_layers", 2},
                       {"kv_channels", 8},
                       {"layer_norm_epsilon", 1e-6},
                       {"rotary_emb_base", 10000},
                       {"seq_length", 8192},
                       {"vocab_size", 100},
                       {"bf16", true},
                       {"no_bias", true}};
  const absl::StatusOr<ModelConfig> qwen = Parse(config);
  ASSERT_TRUE(Succeeds(qwen));
  EXPECT_EQ(qwen->max_positions, 8192);
  EXPECT_EQ(qwen->layers[0].mlp.intermediate_size, 80);
  EXPECT_EQ(qwen->layers[0].attention.num_kv_heads, 6);
  EXPECT_TRUE(qwen->layers[0].attention.qkv_bias);
  const ParamLayout layout = ParamLayout::FromConfig(*qwen);
  const ParamEntry& key = *layout.Find(ParamRole::kKey, 1);
  EXPECT_EQ(key.name, "transformer.h.1.attn.c_attn.weight");
  EXPECT_EQ(key.disk_offset, 48);
  EXPECT_EQ(key.disk_rows, 144);
  EXPECT_EQ(layout.Find(ParamRole::kValueBias, 1)->disk_offset, 96);
  EXPECT_EQ(layout.Find(ParamRole::kGate, 0)->name, "transformer.h.0.mlp.w2.weight");

  json other = config;
  other["intermediate_size"] = 161;
  EXPECT_TRUE(Fails(Parse(other), absl::StatusCode::kInvalidArgument, "intermediate_size", "even"));
  other = config;
  other["no_bias"] = false;
  EXPECT_TRUE(Fails(Parse(other), absl::StatusCode::kUnimplemented, "no_bias"));
}

TEST(ModelFamiliesTest, Phi3FusesItsProjectionsAndRotatesAPart) {
  json config = Base("phi3");
  config.update({{"head_dim", 16},
                 {"partial_rotary_factor", 0.5},
                 {"original_max_position_embeddings", 64},
                 {"rope_scaling", {{"type", "su"}, {"short_factor", {1, 1, 1.5, 2}}, {"long_factor", {2, 3, 4, 5}}}}});
  const absl::StatusOr<ModelConfig> phi = Parse(config);
  ASSERT_TRUE(Succeeds(phi));
  EXPECT_EQ(phi->ropes[0].scaling, RopeScaling::kLongRope);
  EXPECT_EQ(phi->ropes[0].rotary_dim, 8);
  EXPECT_NEAR(phi->ropes[0].attention_factor, std::sqrt(1 + std::log(8.0) / std::log(64.0)), 1e-12);
  const ParamLayout layout = ParamLayout::FromConfig(*phi);
  EXPECT_EQ(layout.Find(ParamRole::kValue, 0)->disk_offset, 6 * 16 + 3 * 16);
  EXPECT_EQ(layout.Find(ParamRole::kValue, 0)->disk_rows, 12 * 16);
  EXPECT_EQ(layout.Find(ParamRole::kUp, 0)->name, layout.Find(ParamRole::kGate, 0)->name);
  EXPECT_EQ(layout.Find(ParamRole::kUp, 0)->disk_offset, 80);

  config["rope_scaling"]["short_factor"] = {1, 2};
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kInvalidArgument, "short_factor", "4 numbers"));
}

TEST(ModelFamiliesTest, MixturesNameEveryExpertAndKeepDenseLayersBetween) {
  json config = Base("qwen2_moe");
  config.update({{"num_experts", 5},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", 12},
                 {"shared_expert_intermediate_size", 20},
                 {"decoder_sparse_step", 2},
                 {"mlp_only_layers", {3}}});
  const absl::StatusOr<ModelConfig> moe = Parse(config);
  ASSERT_TRUE(Succeeds(moe));
  EXPECT_EQ(moe->layers[0].moe.num_experts, 0);
  EXPECT_EQ(moe->layers[0].mlp.intermediate_size, 80);
  EXPECT_EQ(moe->layers[1].moe.num_experts, 5);
  EXPECT_EQ(moe->layers[1].mlp.intermediate_size, 0);
  EXPECT_EQ(moe->layers[1].moe.shared_size, 20);
  EXPECT_EQ(moe->layers[3].moe.num_experts, 0);
  EXPECT_FALSE(moe->layers[1].moe.renormalize);
  const ParamLayout layout = ParamLayout::FromConfig(*moe);
  EXPECT_EQ(layout.Find(ParamRole::kExpertDown, 1, 4)->name, "model.layers.1.mlp.experts.4.down_proj.weight");
  EXPECT_TRUE(layout.Find(ParamRole::kExpertDown, 1, 4)->writes_residual);
  EXPECT_EQ(layout.Find(ParamRole::kExpertDown, 0, 0), nullptr);
  EXPECT_EQ(layout.Find(ParamRole::kSharedRouter, 1)->shape, (std::vector<int64_t>{1, 48}));
  const absl::StatusOr<ShardPlan> plan = MakeShardPlan(*moe, layout, 3);
  ASSERT_TRUE(Succeeds(plan));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kExpertUp, 1, 0), plan->ranks[1]), (Range{4, 8}));
  EXPECT_EQ(SliceOf(*layout.Find(ParamRole::kSharedDown, 1), plan->ranks[2]), (Range{14, 20}));

  config["num_experts_per_tok"] = 6;
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kInvalidArgument, "num_experts_per_tok"));
}

TEST(ModelFamiliesTest, MixtralRenormalizesAndHasItsOwnNames) {
  json config = Base("mixtral");
  config.update({{"num_local_experts", 4}, {"num_experts_per_tok", 2}});
  const absl::StatusOr<ModelConfig> moe = Parse(config);
  ASSERT_TRUE(Succeeds(moe));
  EXPECT_TRUE(moe->layers[0].moe.renormalize);
  EXPECT_EQ(moe->layers[0].moe.expert_size, 80);
  EXPECT_EQ(Windows(*moe), std::vector<int64_t>(6, 0));
  const ParamLayout layout = ParamLayout::FromConfig(*moe);
  EXPECT_EQ(layout.Find(ParamRole::kExpertUp, 2, 3)->name, "model.layers.2.block_sparse_moe.experts.3.w3.weight");
}

TEST(ModelFamiliesTest, YarnHasTheMagnitudeOfItsFactor) {
  json config = Base("qwen3");
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  const absl::StatusOr<ModelConfig> qwen = Parse(config);
  ASSERT_TRUE(Succeeds(qwen));
  EXPECT_EQ(qwen->ropes[0].scaling, RopeScaling::kYarn);
  EXPECT_NEAR(qwen->ropes[0].attention_factor, 0.1 * std::log(4.0) + 1.0, 1e-12);
  EXPECT_TRUE(qwen->layers[0].attention.qk_norm);
}

TEST(ModelFamiliesTest, WhatIsUnknownIsRefusedByItsKey) {
  json config = Base("llama");
  config["rope_scaling"] = {{"rope_type", "magic"}};
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kUnimplemented, "rope_scaling.rope_type", "magic"));
  config = Base("llama");
  config["partial_rotary_factor"] = 0.5;
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kUnimplemented, "partial_rotary_factor"));
  config = Base("gemma2");
  config["hidden_activation"] = "relu";
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kUnimplemented, "hidden_activation", "relu"));
  config = Base("gemma3_text");
  config["attn_logit_softcapping"] = 50.0;
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kUnimplemented, "attn_logit_softcapping"));
  config = Base("gemma3_text");
  config["use_bidirectional_attention"] = true;
  EXPECT_TRUE(Fails(Parse(config), absl::StatusCode::kUnimplemented, "use_bidirectional_attention"));
}

}  // namespace
}  // namespace bearing::sharding
