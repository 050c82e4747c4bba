#include "tests/sharding/tiny_checkpoint.h"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/safetensors.h"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::testing {
namespace {

std::string ShardName(int shard, int shards) {
  if (shards == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard + 1, shards);
  return name;
}

std::string RandomBytes(int64_t count, std::mt19937* random) {
  std::string bytes(static_cast<size_t>(count), '\0');
  for (char& byte : bytes) byte = static_cast<char>((*random)());
  return bytes;
}

int64_t NumBytes(const sharding::ParamEntry& entry, sharding::DType dtype) {
  int64_t bytes = sharding::DTypeSize(dtype);
  for (const int64_t axis : entry.shape) bytes *= axis;
  return bytes;
}

}  // namespace

std::string TinyConfig(const TinyModel& model) {
  nlohmann::ordered_json config;
  config["architectures"] = {model.family == "llama" ? "LlamaForCausalLM" : "Qwen2ForCausalLM"};
  config["model_type"] = model.family;
  config["hidden_size"] = 16;
  config["head_dim"] = 4;
  config["num_attention_heads"] = 6;
  config["num_key_value_heads"] = 3;
  config["intermediate_size"] = 10;
  config["num_hidden_layers"] = 2;
  config["rms_norm_eps"] = 1e-5;
  config["tie_word_embeddings"] = model.tied;
  config["torch_dtype"] = model.dtype == sharding::DType::kF32 ? "float32" : "bfloat16";
  config["vocab_size"] = 11;
  return config.dump(2) + "\n";
}

TensorBytes WriteTinyCheckpoint(const std::string& folder, const TinyModel& model) {
  std::filesystem::create_directories(folder);
  WriteText(folder + "/config.json", TinyConfig(model));
  WriteText(folder + "/generation_config.json", R"({"eos_token_id": [7, 9]})");
  WriteText(folder + "/tokenizer.json", "{\"any\": \"bytes\"}\n");
  WriteText(folder + "/LICENSE", "some licence\n");
  WriteText(folder + "/modeling_custom.py", "raise SystemExit\n");

  const auto config = sharding::ParseModelConfig(TinyConfig(model), "tiny");
  EXPECT_TRUE(Succeeds(config));
  TensorBytes tensors;
  std::vector<std::vector<sharding::SafetensorsTensor>> shards(static_cast<size_t>(model.shards));
  nlohmann::ordered_json index;
  int64_t total = 0;
  std::mt19937 random(1);
  const sharding::ParamLayout layout = sharding::ParamLayout::FromConfig(*config);
  for (size_t i = 0; i < layout.entries().size(); ++i) {
    const sharding::ParamEntry& entry = layout.entries()[i];
    tensors[entry.name] = RandomBytes(NumBytes(entry, model.dtype), &random);
    total += NumBytes(entry, model.dtype);
    const size_t shard = i * shards.size() / layout.entries().size();
    shards[shard].push_back({entry.name, model.dtype, entry.shape, tensors[entry.name].data()});
    index["weight_map"][entry.name] = ShardName(static_cast<int>(shard), model.shards);
  }
  for (int shard = 0; shard < model.shards; ++shard) {
    EXPECT_TRUE(Succeeds(sharding::WriteSafetensors(folder + "/" + ShardName(shard, model.shards),
                                                    shards[static_cast<size_t>(shard)], {{"format", "pt"}})));
  }
  index["metadata"]["total_size"] = total;
  if (model.shards > 1) WriteText(folder + "/model.safetensors.index.json", index.dump(2));
  return tensors;
}

}  // namespace bearing::testing
