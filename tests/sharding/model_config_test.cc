#include "sharding/model_config.h"

#include <cmath>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::WriteText;
using nlohmann::json;

// The keys that such models have, in the spelling of the version that wrote them.

constexpr char kLlama31[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
  "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
  "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
  "use_cache": true, "vocab_size": 128256})";

constexpr char kSmolLm2[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
  "dtype": "bfloat16", "eos_token_id": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 576,
  "intermediate_size": 1536, "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
  "rms_norm_eps": 9.999999747378752e-06, "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
  "tie_word_embeddings": true, "transformers_version": "5.17.0", "vocab_size": 49152})";

constexpr char kYi[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 4, "pad_token_id": 0, "pretraining_tp": 1,
  "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 5000000.0, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "vocab_size": 64000})";

constexpr char kQwen2Old[] = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
  "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768,
  "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 151936})";

std::string Qwen2New() {
  json config = json::parse(kQwen2Old);
  for (const char* old : {"rope_theta", "torch_dtype"}) config.erase(old);
  config["rope_parameters"] = {{"rope_theta", 1000000.0}, {"rope_type", "default"}};
  config["dtype"] = "bfloat16";
  config["layer_types"] = std::vector<std::string>(24, "full_attention");
  config["sliding_window"] = nullptr;
  return config.dump();
}

// `base` with keys set or, for a discarded value, removed.
std::string With(const char* base, const json& changes) {
  json config = json::parse(base);
  config.merge_patch(changes);
  return config.dump();
}

absl::StatusOr<ModelConfig> Parse(const std::string& text) { return ParseModelConfig(text, "some/config.json"); }

TEST(ModelConfigTest, Llama31) {
  const auto config = Parse(kLlama31);
  ASSERT_TRUE(Succeeds(config));
  EXPECT_EQ(config->family, "llama");
  EXPECT_EQ(config->d_model, 4096);
  EXPECT_EQ(config->vocab_size, 128256);
  EXPECT_EQ(config->max_positions, 131072);
  EXPECT_DOUBLE_EQ(config->norm.eps, 1e-5);
  EXPECT_EQ(config->num_layers(), 32);
  const AttentionSpec& attention = config->layers[31].attention;
  EXPECT_EQ(attention.num_heads, 32);
  EXPECT_EQ(attention.num_kv_heads, 8);
  EXPECT_EQ(attention.head_dim, 128);
  EXPECT_FALSE(attention.qkv_bias);
  EXPECT_FALSE(attention.o_bias);
  EXPECT_DOUBLE_EQ(attention.scale, 1 / std::sqrt(128.0));
  EXPECT_EQ(config->layers[0].mlp.intermediate_size, 14336);
  EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kLlama3);
  EXPECT_DOUBLE_EQ(config->ropes[0].theta, 500000.0);
  EXPECT_DOUBLE_EQ(config->ropes[0].factor, 8.0);
  EXPECT_DOUBLE_EQ(config->ropes[0].low_freq_factor, 1.0);
  EXPECT_DOUBLE_EQ(config->ropes[0].high_freq_factor, 4.0);
  EXPECT_EQ(config->ropes[0].original_max_positions, 8192);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->dtype, DType::kBF16);
  EXPECT_THAT(config->eos_token_ids, ::testing::ElementsAre(128001, 128008, 128009));
}

TEST(ModelConfigTest, Llama31InTheNewSpelling) {
  json config = json::parse(kLlama31);
  json rope = config["rope_scaling"];
  rope["rope_theta"] = config["rope_theta"];
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config["rope_parameters"] = rope;
  const auto parsed = Parse(config.dump());
  ASSERT_TRUE(Succeeds(parsed));
  EXPECT_EQ(parsed->ropes[0].scaling, RopeScaling::kLlama3);
  EXPECT_DOUBLE_EQ(parsed->ropes[0].theta, 500000.0);
  EXPECT_EQ(parsed->ropes[0].original_max_positions, 8192);
}

TEST(ModelConfigTest, SmolLm2) {
  const auto config = Parse(kSmolLm2);
  ASSERT_TRUE(Succeeds(config));
  EXPECT_EQ(config->layers.size(), 30u);
  EXPECT_EQ(config->layers[0].attention.num_heads, 9);
  EXPECT_EQ(config->layers[0].attention.num_kv_heads, 3);
  EXPECT_DOUBLE_EQ(config->ropes[0].theta, 100000.0);
  EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kNone);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_EQ(config->dtype, DType::kBF16);
  EXPECT_THAT(config->eos_token_ids, ::testing::ElementsAre(2));
}

TEST(ModelConfigTest, Yi) {
  const auto config = Parse(kYi);
  ASSERT_TRUE(Succeeds(config));
  EXPECT_DOUBLE_EQ(config->ropes[0].theta, 5000000.0);
  EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kNone);
  EXPECT_EQ(config->layers[0].attention.num_kv_heads, 4);
  EXPECT_EQ(config->layers[0].attention.head_dim, 128);
}

TEST(ModelConfigTest, Qwen2InBothSpellings) {
  for (const std::string& text : {std::string(kQwen2Old), Qwen2New()}) {
    const auto config = Parse(text);
    ASSERT_TRUE(Succeeds(config));
    EXPECT_EQ(config->family, "qwen2");
    EXPECT_DOUBLE_EQ(config->ropes[0].theta, 1000000.0);
    EXPECT_EQ(config->dtype, DType::kBF16);
    EXPECT_TRUE(config->layers[23].attention.qkv_bias);
    EXPECT_FALSE(config->layers[23].attention.o_bias);
    EXPECT_FALSE(config->layers[23].mlp.bias);
    EXPECT_EQ(config->layers[23].attention.head_dim, 64);
    EXPECT_TRUE(config->tied_embeddings);
  }
}

TEST(ModelConfigTest, Biases) {
  const auto llama = Parse(With(kYi, {{"attention_bias", true}, {"mlp_bias", true}}));
  ASSERT_TRUE(Succeeds(llama));
  EXPECT_TRUE(llama->layers[0].attention.qkv_bias);
  EXPECT_TRUE(llama->layers[0].attention.o_bias);
  EXPECT_TRUE(llama->layers[0].mlp.bias);
  // Qwen2 hard-codes its biases, whatever the file says.
  const auto qwen = Parse(With(kQwen2Old, {{"attention_bias", false}, {"mlp_bias", true}}));
  ASSERT_TRUE(Succeeds(qwen));
  EXPECT_TRUE(qwen->layers[0].attention.qkv_bias);
  EXPECT_FALSE(qwen->layers[0].mlp.bias);
}

TEST(ModelConfigTest, DefaultsOfKeysThatOldFilesLack) {
  const auto config = Parse(With(kYi, {{"num_key_value_heads", nullptr},
                                       {"max_position_embeddings", nullptr},
                                       {"rms_norm_eps", nullptr},
                                       {"rope_theta", nullptr},
                                       {"hidden_act", nullptr},
                                       {"architectures", nullptr},
                                       {"eos_token_id", nullptr},
                                       {"torch_dtype", nullptr},
                                       {"tie_word_embeddings", nullptr}}));
  ASSERT_TRUE(Succeeds(config));
  EXPECT_EQ(config->layers[0].attention.num_kv_heads, 32);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_DOUBLE_EQ(config->norm.eps, 1e-6);
  EXPECT_DOUBLE_EQ(config->ropes[0].theta, 10000.0);
  EXPECT_EQ(config->dtype, DType::kF32);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_TRUE(config->eos_token_ids.empty());
}

TEST(ModelConfigTest, ExplicitHeadDimNeedNotDivide) {
  const auto config = Parse(With(kYi, {{"head_dim", 96}, {"hidden_size", 5000}}));
  ASSERT_TRUE(Succeeds(config));
  EXPECT_EQ(config->layers[0].attention.head_dim, 96);
}

TEST(ModelConfigTest, LinearRope) {
  for (const char* key : {"type", "rope_type"}) {
    const auto config = Parse(With(kYi, {{"rope_scaling", {{key, "linear"}, {"factor", 2}}}}));
    ASSERT_TRUE(Succeeds(config));
    EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kLinear);
    EXPECT_DOUBLE_EQ(config->ropes[0].factor, 2.0);
    EXPECT_DOUBLE_EQ(config->ropes[0].theta, 5000000.0);
  }
}

TEST(ModelConfigTest, Llama3RopeTakesTheModelsLengthWithoutItsOwn) {
  json config = json::parse(kLlama31);
  config["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(Parse(config.dump())->ropes[0].original_max_positions, 131072);
}

TEST(ModelConfigTest, SlidingWindowThatCutsNothing) {
  EXPECT_TRUE(Succeeds(Parse(With(kQwen2Old, {{"use_sliding_window", true}, {"max_window_layers", 24}}))));
  EXPECT_TRUE(Succeeds(Parse(With(kQwen2Old, {{"use_sliding_window", true}, {"sliding_window", 32768}}))));
  EXPECT_TRUE(Succeeds(Parse(With(kQwen2Old, {{"use_sliding_window", false}, {"sliding_window", 128}}))));
}

// ---- What is not supported is refused by the name of its key.

using Change = std::pair<std::string, json>;

class ModelConfigTestUnsupported : public ::testing::TestWithParam<std::tuple<const char*, Change, const char*>> {};

TEST_P(ModelConfigTestUnsupported, IsNamed) {
  const auto& [base, change, named] = GetParam();
  EXPECT_TRUE(Fails(Parse(With(base, {{change.first, change.second}})), absl::StatusCode::kUnimplemented, "some/config.json",
                    std::string("key=") + named));
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelConfigTestUnsupported,
    ::testing::Values(
        std::tuple{kYi, Change{"model_type", "gemma4"}, "model_type"},
        std::tuple{kYi, Change{"architectures", {"LlamaForSequenceClassification"}}, "architectures"},
        std::tuple{kYi, Change{"hidden_act", "gelu"}, "hidden_act"},
        std::tuple{kYi, Change{"quantization_config", {{"quant_method", "awq"}}}, "quantization_config"},
        std::tuple{kYi, Change{"compression_config", {{"format", "x"}}}, "compression_config"},
        std::tuple{kYi, Change{"auto_map", {{"AutoModelForCausalLM", "modeling.Other"}}}, "auto_map.AutoModelForCausalLM"},
        std::tuple{kYi, Change{"partial_rotary_factor", 0.5}, "partial_rotary_factor"},
        std::tuple{kYi, Change{"rope_scaling", {{"type", "ntk"}, {"factor", 2.0}}}, "rope_scaling.type"},
        std::tuple{kYi, Change{"rope_parameters", {{"rope_type", "proportional"}}}, "rope_parameters.rope_type"},
        std::tuple{kYi, Change{"rope_parameters", {{"partial_rotary_factor", 0.25}}}, "rope_parameters.partial_rotary_factor"},
        std::tuple{kYi, Change{"torch_dtype", "float8_e4m3fn"}, "torch_dtype"},
        std::tuple{kYi, Change{"dtype", "float64"}, "dtype"},
        std::tuple{kYi, Change{"layer_types", std::vector<std::string>(32, "sliding_attention")}, "layer_types"},
        std::tuple{kQwen2Old, Change{"layer_types", std::vector<std::string>(24, "linear_attention")}, "layer_types"}));

TEST(ModelConfigTest, UnknownFamilyListsTheKnown) {
  EXPECT_TRUE(Fails(Parse(With(kYi, {{"model_type", "mamba"}})), absl::StatusCode::kUnimplemented, "\"mamba\"",
                    "llama, mistral, qwen, qwen2"));
}

// ---- Wrong values are refused by the name of their key.

class ModelConfigTestInvalid : public ::testing::TestWithParam<Change> {};

TEST_P(ModelConfigTestInvalid, IsNamed) {
  const auto& [key, value] = GetParam();
  EXPECT_TRUE(
      Fails(Parse(With(kLlama31, {{key, value}})), absl::StatusCode::kInvalidArgument, "some/config.json", "key=" + key));
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelConfigTestInvalid,
    ::testing::Values(Change{"model_type", nullptr}, Change{"model_type", 3}, Change{"hidden_size", nullptr},
                      Change{"hidden_size", 0}, Change{"hidden_size", -4}, Change{"hidden_size", 4096.5},
                      Change{"hidden_size", "4096"}, Change{"hidden_size", uint64_t{1} << 63}, Change{"vocab_size", nullptr},
                      Change{"vocab_size", 1LL << 40}, Change{"intermediate_size", nullptr},
                      Change{"num_hidden_layers", nullptr}, Change{"num_hidden_layers", 1000000000},
                      Change{"num_attention_heads", nullptr}, Change{"num_attention_heads", 24},
                      Change{"num_key_value_heads", 5}, Change{"head_dim", 63}, Change{"rms_norm_eps", "small"},
                      Change{"rms_norm_eps", -1.0}, Change{"rope_theta", 0}, Change{"rope_scaling", "linear"},
                      Change{"attention_bias", 1}, Change{"tie_word_embeddings", "no"}, Change{"eos_token_id", "end"},
                      Change{"eos_token_id", {1, -1}}, Change{"eos_token_id", 1.5}, Change{"architectures", "LlamaForCausalLM"},
                      Change{"architectures", json::array()}, Change{"layer_types", {"full_attention"}},
                      Change{"auto_map", "x"}));

TEST(ModelConfigTest, RopeFieldsAreNamedWithTheirObject) {
  EXPECT_TRUE(Fails(Parse(With(kYi, {{"rope_scaling", {{"type", "linear"}}}})), absl::StatusCode::kInvalidArgument,
                    "key=rope_scaling.factor", "missing"));
  EXPECT_TRUE(Fails(Parse(With(kLlama31, {{"rope_scaling", {{"high_freq_factor", 1.0}}}})), absl::StatusCode::kInvalidArgument,
                    "key=rope_scaling.high_freq_factor"));
}

TEST(ModelConfigTest, TextThatIsNoConfig) {
  EXPECT_TRUE(Fails(Parse(""), absl::StatusCode::kInvalidArgument, "some/config.json"));
  EXPECT_TRUE(Fails(Parse("{\"a\": "), absl::StatusCode::kInvalidArgument, "some/config.json", "JSON"));
  EXPECT_TRUE(Fails(Parse("[1]"), absl::StatusCode::kInvalidArgument, "some/config.json", "object"));
  EXPECT_TRUE(Fails(Parse(std::string("{}\0{}", 5)), absl::StatusCode::kInvalidArgument, "zero byte"));
  // A message quotes the text as one line of ASCII, however long it is.
  for (const std::string& text :
       {std::string("{\"model_type\": \"\xff\xfe\"}"), "{\"a\": \"" + std::string(100'000, 'x') + "\n\"}",
        std::string("{\"a\n\": 1, \"a\n\": 2}"), std::string("{\"a\\nb\": 1, \"a\\nb\": 2}")}) {
    const auto parsed = Parse(text);
    ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LT(parsed.status().message().size(), 500u);
    for (const char c : parsed.status().message()) ASSERT_TRUE(c >= ' ' && c < 0x7f) << parsed.status();
  }
  EXPECT_TRUE(Fails(Parse(R"({"model_type": "llama", "model_type": "qwen2"})"), absl::StatusCode::kInvalidArgument, "twice",
                    "key=model_type"));
  EXPECT_TRUE(Fails(Parse(R"({"a": {"b": 1, "b": 1}})"), absl::StatusCode::kInvalidArgument, "twice", "key=b"));
}

// Documents are written and copied by recursion: one that nests without end would end the stack.
TEST(ModelConfigTest, NestingHasABound) {
  const auto nested = [](size_t depth) { return R"({"a": )" + std::string(depth, '[') + std::string(depth, ']') + "}"; };
  EXPECT_TRUE(Fails(Parse(nested(100'000)), absl::StatusCode::kInvalidArgument, "nested deeper than 64", "some/config.json"));
  EXPECT_TRUE(Fails(Parse(nested(64)), absl::StatusCode::kInvalidArgument, "nested deeper than 64", "some/config.json"));
  EXPECT_TRUE(Fails(Parse(nested(63)), absl::StatusCode::kInvalidArgument, "model_type", "missing"));
}

TEST(ModelConfigTest, ExpertsOfAllLayersHaveABound) {
  const auto mixture = [](int layers, int experts) {
    return json{{"model_type", "mixtral"},      {"hidden_size", 64},        {"vocab_size", 100},
                {"num_hidden_layers", layers},  {"num_attention_heads", 4}, {"intermediate_size", 32},
                {"num_local_experts", experts}, {"num_experts_per_tok", 2}, {"max_position_embeddings", 64}}
        .dump();
  };
  EXPECT_TRUE(Parse(mixture(64, 4096)).ok());
  EXPECT_TRUE(Fails(Parse(mixture(65, 4096)), absl::StatusCode::kInvalidArgument, "262144 experts", "key=num_hidden_layers"));
}

TEST(ModelConfigTest, SameKeyInTwoObjectsIsFine) {
  EXPECT_TRUE(Succeeds(Parse(With(kYi, {{"a", {{"k", 1}, {"in", {{"k", 1}}}}}, {"b", {{{"k", 1}}, {{"k", 2}}}}}))));
}

TEST(ModelConfigTest, LoadAddsTheEndsOfGeneration) {
  const TempFolder folder;
  WriteText(folder / "config.json", kQwen2Old);
  EXPECT_THAT(LoadModelConfig(folder.path())->eos_token_ids, ::testing::ElementsAre(151645));
  WriteText(folder / "generation_config.json", R"({"eos_token_id": [151645, 151643]})");
  EXPECT_THAT(LoadModelConfig(folder.path())->eos_token_ids, ::testing::ElementsAre(151645, 151643));
  WriteText(folder / "generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_TRUE(
      Fails(LoadModelConfig(folder.path()), absl::StatusCode::kInvalidArgument, "generation_config.json", "eos_token_id"));
}

TEST(ModelConfigTest, LoadNamesWhatIsMissing) {
  const TempFolder folder;
  EXPECT_TRUE(Fails(LoadModelConfig(folder.path()), absl::StatusCode::kNotFound, folder / "config.json"));
}

}  // namespace
}  // namespace bearing::sharding
