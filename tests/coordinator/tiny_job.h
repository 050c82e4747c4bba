// A job that the real checks accept: a llama of a few kilobytes (all weights 0) and six prompt files, written into a folder.
#ifndef BEARING_TESTS_COORDINATOR_TINY_JOB_H_
#define BEARING_TESTS_COORDINATOR_TINY_JOB_H_

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bearing/v1/job.pb.h"

namespace bearing::coordinator {

// d_model 16, 4 heads over 2 KV heads, one layer, tied embeddings, bfloat16.
inline void WriteTinyModel(const std::string& folder) {
  const nlohmann::json config = {{"model_type", "llama"},       {"architectures", {"LlamaForCausalLM"}},
                                 {"hidden_size", 16},           {"intermediate_size", 8},
                                 {"num_attention_heads", 4},    {"num_key_value_heads", 2},
                                 {"num_hidden_layers", 1},      {"vocab_size", 32},
                                 {"rms_norm_eps", 1e-5},        {"max_position_embeddings", 64},
                                 {"tie_word_embeddings", true}, {"torch_dtype", "bfloat16"},
                                 {"hidden_act", "silu"},        {"rope_theta", 10000.0}};
  const std::string layer = "model.layers.0.";
  const std::vector<std::pair<std::string, std::vector<int>>> tensors = {{"model.embed_tokens.weight", {32, 16}},
                                                                         {layer + "input_layernorm.weight", {16}},
                                                                         {layer + "mlp.down_proj.weight", {16, 8}},
                                                                         {layer + "mlp.gate_proj.weight", {8, 16}},
                                                                         {layer + "mlp.up_proj.weight", {8, 16}},
                                                                         {layer + "post_attention_layernorm.weight", {16}},
                                                                         {layer + "self_attn.k_proj.weight", {8, 16}},
                                                                         {layer + "self_attn.o_proj.weight", {16, 16}},
                                                                         {layer + "self_attn.q_proj.weight", {16, 16}},
                                                                         {layer + "self_attn.v_proj.weight", {8, 16}},
                                                                         {"model.norm.weight", {16}}};
  nlohmann::json header;
  size_t offset = 0;
  for (const auto& [name, shape] : tensors) {
    size_t bytes = 2;
    for (const int size : shape) bytes *= size;
    header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/config.json") << config.dump();
  const nlohmann::json words = {{"[unknown]", 0}, {"one", 1}, {"two", 2}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"added_tokens", nlohmann::json::array()},
                                    {"pre_tokenizer", {{"type", "Whitespace"}}},
                                    {"model", {{"type", "WordLevel"}, {"vocab", words}, {"unk_token", "[unknown]"}}}};
  std::ofstream(folder + "/tokenizer.json") << tokenizer.dump();
  std::ofstream(folder + "/chat_template.jinja") << "{{ messages[0]['content'] }} answer";
  std::ofstream out(folder + "/model.safetensors", std::ios::binary);
  const uint64_t length = text.size();
  for (int i = 0; i < 8; ++i) out.put(static_cast<char>(length >> (8 * i)));
  out << text << std::string(offset, '\0');
}

inline bearing::v1::JobSpec WriteTinyJob(const std::string& folder, const std::string& name) {
  WriteTinyModel(folder + "/model");
  bearing::v1::JobSpec spec;
  spec.set_name(name);
  spec.mutable_model()->set_path(folder + "/model");
  spec.mutable_concept_spec()->set_name("refusal");
  spec.set_output(folder + "/out");
  const auto source = [&](const std::string& text) {
    bearing::v1::PromptSource source;
    source.set_file(absl::StrCat(folder, "/", text, ".txt"));
    std::ofstream(source.file()) << text << " one\n" << text << " two\n";
    return source;
  };
  const auto side = [&](const std::string& text, bearing::v1::PromptSide* out) {
    *out->mutable_train() = source(text + "-train");
    *out->mutable_validation() = source(text + "-validation");
    *out->mutable_test() = source(text + "-test");
  };
  side("positive", spec.mutable_prompts()->mutable_positive());
  side("negative", spec.mutable_prompts()->mutable_negative());
  return spec;
}

}  // namespace bearing::coordinator

#endif  // BEARING_TESTS_COORDINATOR_TINY_JOB_H_
