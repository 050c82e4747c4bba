// The configs of real models (data/configs, from public facts): each is read, has as many parameters as were published, and is
// planned for any number of ranks without its weights.
#include <cctype>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "sharding/concat.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/posix_file.h"
#include "sharding/shard_plan.h"
#include "tests/sharding/status_testing.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Succeeds;
using nlohmann::json;

constexpr int64_t kMaxBytes = 1 << 20;

std::string ConfigsFolder() { return std::string(BEARING_SOURCE_DIR) + "/tests/sharding/data/configs/"; }

json Facts() {
  const absl::StatusOr<std::string> text = ReadWholeFile(ConfigsFolder() + "facts.json", kMaxBytes);
  return text.ok() ? json::parse(*text) : json::object();
}

int64_t Parameters(const ParamLayout& layout) {
  int64_t total = 0;
  for (const ParamEntry& entry : layout.entries()) {
    int64_t elements = 1;
    for (const int64_t size : entry.shape) elements *= size;
    total += elements;
  }
  return total;
}

class RealConfigsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(RealConfigsTest, IsReadCountedAndPlanned) {
  const json facts = Facts().at(GetParam());
  const std::string path = ConfigsFolder() + GetParam();
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxBytes);
  ASSERT_TRUE(Succeeds(text));
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(*text, path);
  ASSERT_TRUE(Succeeds(config));
  EXPECT_EQ(config->num_layers(), facts.at("layers").get<int64_t>());
  EXPECT_EQ(config->d_model, facts.at("d_model").get<int64_t>());
  EXPECT_EQ(config->vocab_size, facts.at("vocab_size").get<int64_t>());
  const AttentionSpec& attention = config->layers.front().attention;
  EXPECT_EQ(attention.num_heads, facts.at("heads").get<int64_t>());
  EXPECT_EQ(attention.num_kv_heads, facts.at("kv_heads").get<int64_t>());
  EXPECT_EQ(attention.head_dim, facts.at("head_dim").get<int64_t>());
  EXPECT_EQ(config->tied_embeddings, facts.at("tied").get<bool>());

  std::vector<int64_t> sliding;
  for (int64_t i = 0; i < config->num_layers(); ++i) {
    const AttentionSpec& layer = config->layers[static_cast<size_t>(i)].attention;
    if (layer.sliding_window == 0) continue;
    sliding.push_back(i);
    EXPECT_EQ(layer.sliding_window, facts.at("window").get<int64_t>());
  }
  EXPECT_EQ(sliding, facts.value("window_layers", std::vector<int64_t>()));

  const ParamLayout layout = ParamLayout::FromConfig(*config);
  // Of a multimodal model, its text model is what is run.
  const char* const total = facts.contains("text_parameters") ? "text_parameters" : "parameters";
  EXPECT_EQ(Parameters(layout), facts.at(total).get<int64_t>());
  for (const int64_t ranks : {1, 2, 3, 4, 8}) {
    if (ranks > attention.num_heads) break;
    const absl::StatusOr<ShardPlan> plan = MakeShardPlan(*config, layout, ranks);
    ASSERT_TRUE(Succeeds(plan)) << ranks;
    int64_t owned = 0;
    for (const ParamEntry& entry : layout.entries()) {
      int64_t across = 1;
      for (size_t axis = 0; axis < entry.shape.size(); ++axis)
        across *= static_cast<int>(axis) == entry.cut_axis ? 1 : entry.shape[axis];
      for (int64_t rank = 0; rank < ranks; ++rank) owned += OwnedSliceOf(entry, *plan, rank).size() * across;
    }
    EXPECT_EQ(owned, Parameters(layout)) << "every parameter has one owner: ranks=" << ranks;
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  const json all = Facts();
  for (const auto& [name, facts] : all.items()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, RealConfigsTest, ::testing::ValuesIn(Names()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
});

TEST(RealConfigsTest, EveryFileHasItsFacts) {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(ConfigsFolder())) {
    const std::string name = file.path().filename();
    if (file.path().extension() != ".json" || name == "facts.json") continue;
    EXPECT_TRUE(Facts().contains(name)) << name;
    ++files;
  }
  EXPECT_GE(files, 39);
}

}  // namespace
}  // namespace bearing::sharding
