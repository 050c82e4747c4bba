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

// A few tensors of several families and formats, so that the reading gets further than the first name.
const std::vector<DiskTensor>& Tensors() {
  static const auto* const tensors = new std::vector<DiskTensor>{
      {"model.embed_tokens.weight", DType::kBF16, {67, 32}},
      {"model.norm.weight", DType::kBF16, {32}},
      {"lm_head.weight", DType::kBF16, {67, 32}},
      {"model.layers.0.self_attn.o_proj.weight", DType::kF8E4M3, {32, 32}},
      {"model.layers.0.self_attn.o_proj.weight_scale", DType::kF32, {32, 1}},
      {"model.layers.0.self_attn.o_proj.weight_scale_inv", DType::kF32, {2, 2}},
      {"model.layers.0.mlp.down_proj.weight", DType::kBF16, {32, 24}},
      {"model.layers.0.mlp.experts.down_proj_blocks", DType::kU8, {4, 32, 1, 16}},
      {"model.layers.0.mlp.experts.down_proj_scales", DType::kU8, {4, 32, 1}},
      {"model.layers.0.mlp.experts.down_proj_bias", DType::kBF16, {4, 32}},
  };
  return *tensors;
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
  const auto model = FindResidualWriters(text, "the-config", Tensors(), /*with_projector=*/true);
  if (model.ok()) BEARING_REQUIRE(model->d_model > 0 && !model->writers.empty());
  const auto rewritten = RewriteConfig(text, "the-config", {{"tie_word_embeddings", false}, {"quantization_config", nullptr}});
  BEARING_REQUIRE(rewritten.ok() || !config.ok());
  return 0;
}
