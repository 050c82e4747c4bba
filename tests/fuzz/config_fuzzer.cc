// Everything that reads config.json: the model's shape for the decoder, the shard plan that follows from it, and the table of
// what writes the residual stream, with the quantization of its tensors.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/residual_writers.h"
#include "sharding/rewritten_text.h"
#include "tests/fuzz/require.h"

namespace {

using bearing::sharding::DiskTensor;
using bearing::sharding::DType;

using Tensors = std::vector<DiskTensor>;

constexpr DType kPlain = DType::kBF16;
constexpr DType kFloat8 = DType::kF8E4M3;

Tensors With(Tensors tensors, const Tensors& more) {
  tensors.insert(tensors.end(), more.begin(), more.end());
  return tensors;
}

// One layer of a small model as the families store it: plain, in 8 bits with scales by blocks and by rows, and with MXFP4
// experts. So that the reading gets to its end for some configs of each.
const std::vector<Tensors>& Checkpoints() {
  static const auto* const checkpoints = [] {
    const Tensors shared = {
        {"model.embed_tokens.weight", kPlain, {67, 32}},
        {"model.norm.weight", kPlain, {32}},
        {"lm_head.weight", kPlain, {67, 32}},
        {"model.layers.0.input_layernorm.weight", kPlain, {32}},
        {"model.layers.0.post_attention_layernorm.weight", kPlain, {32}},
        {"model.layers.0.self_attn.q_proj.weight", kPlain, {32, 32}},
        {"model.layers.0.self_attn.k_proj.weight", kPlain, {16, 32}},
        {"model.layers.0.self_attn.v_proj.weight", kPlain, {16, 32}},
    };
    const Tensors dense = With(shared, {{"model.layers.0.mlp.gate_proj.weight", kPlain, {24, 32}},
                                        {"model.layers.0.mlp.up_proj.weight", kPlain, {24, 32}}});
    auto* const all = new std::vector<Tensors>;
    all->push_back(With(dense, {{"model.layers.0.self_attn.o_proj.weight", kPlain, {32, 32}},
                                {"model.layers.0.mlp.down_proj.weight", kPlain, {32, 24}}}));
    all->push_back(With(dense, {{"model.layers.0.self_attn.o_proj.weight", kFloat8, {32, 32}},
                                {"model.layers.0.self_attn.o_proj.weight_scale_inv", DType::kF32, {2, 2}},
                                {"model.layers.0.mlp.down_proj.weight", kFloat8, {32, 24}},
                                {"model.layers.0.mlp.down_proj.weight_scale_inv", DType::kF32, {2, 2}}}));
    all->push_back(With(dense, {{"model.layers.0.self_attn.o_proj.weight", kFloat8, {32, 32}},
                                {"model.layers.0.self_attn.o_proj.weight_scale", DType::kF32, {32, 1}},
                                {"model.layers.0.mlp.down_proj.weight", kFloat8, {32, 24}},
                                {"model.layers.0.mlp.down_proj.weight_scale", DType::kF32, {1}}}));
    all->push_back(With(shared, {{"model.layers.0.self_attn.o_proj.weight", kPlain, {32, 32}},
                                 {"model.layers.0.mlp.router.weight", kPlain, {4, 32}},
                                 {"model.layers.0.mlp.experts.down_proj_blocks", DType::kU8, {4, 32, 1, 16}},
                                 {"model.layers.0.mlp.experts.down_proj_scales", DType::kU8, {4, 32, 1}},
                                 {"model.layers.0.mlp.experts.down_proj_bias", kPlain, {4, 32}}}));
    return all;
  }();
  return *checkpoints;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bearing::sharding;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = ParseModelConfig(text, "the-config");
  if (!config.ok()) {
    BEARING_REQUIRE(config.status().message().find("the-config") != std::string::npos);
  } else {
    BEARING_REQUIRE(config->d_model > 0 && config->vocab_size > 0 && config->num_layers() > 0);
  }
  const Tensors& tensors = Checkpoints()[size % Checkpoints().size()];  // Which one is for the mutations to choose.
  const auto model = FindResidualWriters(text, "the-config", tensors, /*with_projector=*/true);
  if (model.ok()) BEARING_REQUIRE(model->d_model > 0 && !model->writers.empty());
  const auto rewritten = RewriteConfig(text, "the-config", {{"tie_word_embeddings", false}, {"quantization_config", nullptr}});
  BEARING_REQUIRE(rewritten.ok() || !config.ok());
  return 0;
}
