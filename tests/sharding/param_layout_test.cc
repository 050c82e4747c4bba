#include "sharding/param_layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/sharding/status_testing.h"
#include "tests/sharding/tiny_checkpoint.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::Succeeds;
using bearing::testing::TinyConfig;
using bearing::testing::TinyModel;

ModelConfig Config(const TinyModel& model) { return *ParseModelConfig(TinyConfig(model), "tiny"); }

std::vector<DiskTensor> OnDisk(const ModelConfig& config) {
  std::vector<DiskTensor> tensors;
  const ParamLayout layout = ParamLayout::FromConfig(config);
  for (const ParamEntry& entry : layout.entries()) tensors.push_back({entry.name, DType::kBF16, entry.shape});
  std::reverse(tensors.begin(), tensors.end());
  return tensors;
}

std::vector<std::string> Names(const ParamLayout& layout) {
  std::vector<std::string> names;
  for (const ParamEntry& entry : layout.entries()) names.push_back(entry.name);
  return names;
}

TEST(ParamLayoutTest, LlamaInTheOrderOfTheForwardPass) {
  ModelConfig config = Config({.family = "llama"});
  config.layers.resize(1);
  EXPECT_THAT(Names(ParamLayout::FromConfig(config)),
              ::testing::ElementsAre("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                                     "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
                                     "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
                                     "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_proj.weight",
                                     "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
                                     "model.norm.weight", "lm_head.weight"));
}

TEST(ParamLayoutTest, Qwen2HasBiasesOnQueryKeyAndValueOnly) {
  std::vector<std::string> biases;
  const ParamLayout layout = ParamLayout::FromConfig(Config({.family = "qwen2"}));
  for (const std::string& name : Names(layout)) {
    if (name.ends_with(".bias") && name.find("layers.1.") != std::string::npos) biases.push_back(name);
  }
  EXPECT_THAT(biases, ::testing::ElementsAre("model.layers.1.self_attn.q_proj.bias", "model.layers.1.self_attn.k_proj.bias",
                                             "model.layers.1.self_attn.v_proj.bias"));
}

TEST(ParamLayoutTest, TiedModelHasNoUnembedding) {
  EXPECT_EQ(ParamLayout::FromConfig(Config({.tied = true})).Find(ParamRole::kUnembedding), nullptr);
}

TEST(ParamLayoutTest, ShapesAndCuts) {
  const ParamLayout layout = ParamLayout::FromConfig(Config({}));
  const ParamEntry& query = *layout.Find(ParamRole::kQuery, 1);
  EXPECT_EQ(query.name, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_THAT(query.shape, ::testing::ElementsAre(24, 16));
  EXPECT_EQ(query.cut_by, CutBy::kHeads);
  EXPECT_EQ(query.cut_axis, 0);
  EXPECT_EQ(query.cut_unit, 4);
  const ParamEntry& value = *layout.Find(ParamRole::kValue, 0);
  EXPECT_THAT(value.shape, ::testing::ElementsAre(12, 16));
  EXPECT_EQ(value.cut_by, CutBy::kKvHeads);
  const ParamEntry& out = *layout.Find(ParamRole::kAttentionOut, 0);
  EXPECT_THAT(out.shape, ::testing::ElementsAre(16, 24));
  EXPECT_EQ(out.cut_by, CutBy::kHeads);
  EXPECT_EQ(out.cut_axis, 1);
  const ParamEntry& down = *layout.Find(ParamRole::kDown, 0);
  EXPECT_THAT(down.shape, ::testing::ElementsAre(16, 10));
  EXPECT_EQ(down.cut_by, CutBy::kMlp);
  EXPECT_EQ(down.cut_axis, 1);
  EXPECT_EQ(down.cut_unit, 1);
  EXPECT_EQ(layout.Find(ParamRole::kUnembedding)->cut_by, CutBy::kVocab);
  EXPECT_EQ(layout.Find(ParamRole::kFinalNorm)->cut_by, CutBy::kNone);
  EXPECT_EQ(layout.Find(ParamRole::kQuery, 2), nullptr);
  EXPECT_EQ(layout.FindByName("model.norm.weight")->role, ParamRole::kFinalNorm);
  EXPECT_EQ(layout.FindByName("model.norm.bias"), nullptr);
}

TEST(ParamLayoutTest, WritersOfTheResidualStream) {
  ModelConfig config = Config({});
  for (LayerSpec& layer : config.layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = true;
    layer.mlp.bias = true;
  }
  std::set<ParamRole> writers;
  const ParamLayout layout = ParamLayout::FromConfig(config);
  for (const ParamEntry& entry : layout.entries()) {
    if (!entry.writes_residual) continue;
    writers.insert(entry.role);
    EXPECT_EQ(entry.shape[static_cast<size_t>(entry.residual_axis)], 16) << entry.name;
    EXPECT_EQ(entry.residual_axis, entry.role == ParamRole::kEmbedding ? 1 : 0) << entry.name;
  }
  EXPECT_THAT(writers, ::testing::UnorderedElementsAre(ParamRole::kEmbedding, ParamRole::kAttentionOut,
                                                       ParamRole::kAttentionOutBias, ParamRole::kDown, ParamRole::kDownBias));
  EXPECT_EQ(layout.Find(ParamRole::kAttentionOutBias, 0)->cut_by, CutBy::kNone);
  EXPECT_EQ(layout.Find(ParamRole::kDownBias, 0)->cut_by, CutBy::kNone);
  EXPECT_EQ(layout.Find(ParamRole::kUpBias, 0)->cut_by, CutBy::kMlp);
}

TEST(ParamLayoutTest, MatchesWhateverTheOrderOnDisk) {
  for (const TinyModel& model : {TinyModel{}, TinyModel{.family = "qwen2"}, TinyModel{.tied = true}}) {
    const ModelConfig config = Config(model);
    const auto layout = ParamLayout::Match(config, OnDisk(config));
    ASSERT_TRUE(Succeeds(layout));
    EXPECT_EQ(Names(*layout), Names(ParamLayout::FromConfig(config)));
  }
}

TEST(ParamLayoutTest, EveryMissingTensorIsNamed) {
  const ModelConfig config = Config({.family = "qwen2"});
  const std::vector<DiskTensor> all = OnDisk(config);
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<DiskTensor> tensors = all;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition, "missing", all[i].name));
  }
}

TEST(ParamLayoutTest, TensorWithoutAPlaceIsNamed) {
  const ModelConfig config = Config({});
  for (const char* name : {"model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias", "extra", ""}) {
    std::vector<DiskTensor> tensors = OnDisk(config);
    tensors.push_back({name, DType::kBF16, {16}});
    EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition, "no place", name));
  }
}

TEST(ParamLayoutTest, EveryWrongShapeIsNamed) {
  const ModelConfig config = Config({});
  const std::vector<DiskTensor> all = OnDisk(config);
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<DiskTensor> tensors = all;
    tensors[i].shape.back() += 1;
    EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition, "shape", all[i].name));
  }
}

TEST(ParamLayoutTest, TransposedTensorIsRefused) {
  const ModelConfig config = Config({});
  std::vector<DiskTensor> tensors = OnDisk(config);
  for (DiskTensor& tensor : tensors) {
    if (tensor.name == "model.layers.1.self_attn.o_proj.weight") std::swap(tensor.shape[0], tensor.shape[1]);
  }
  EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition,
                    "model.layers.1.self_attn.o_proj.weight", "want=[16, 24]", "got=[24, 16]"));
}

TEST(ParamLayoutTest, DTypeThatIsNoWeightTypeIsNamed) {
  const ModelConfig config = Config({});
  for (const DType dtype : {DType::kF8E4M3, DType::kI8, DType::kF64}) {
    std::vector<DiskTensor> tensors = OnDisk(config);
    tensors[3].dtype = dtype;
    EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition, "dtype", tensors[3].name,
                      std::string(DTypeName(dtype))));
  }
}

TEST(ParamLayoutTest, TiedModelMayStoreItsUnembedding) {
  const ModelConfig config = Config({.tied = true});
  std::vector<DiskTensor> tensors = OnDisk(config);
  tensors.push_back({"lm_head.weight", DType::kBF16, {11, 16}});
  const auto layout = ParamLayout::Match(config, tensors);
  ASSERT_TRUE(Succeeds(layout));
  ASSERT_NE(layout->Find(ParamRole::kUnembedding), nullptr);
  tensors.back().shape = {12, 16};
  EXPECT_TRUE(Fails(ParamLayout::Match(config, tensors), absl::StatusCode::kFailedPrecondition, "lm_head.weight"));
}

TEST(ParamLayoutTest, OldRotaryBuffersAreIgnored) {
  const ModelConfig config = Config({});
  std::vector<DiskTensor> tensors = OnDisk(config);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {2}});
  const auto layout = ParamLayout::Match(config, tensors);
  ASSERT_TRUE(Succeeds(layout));
  EXPECT_EQ(layout->entries().size(), tensors.size() - 1);
}

}  // namespace
}  // namespace bearing::sharding
