// The readers on real models, where BEARING_DEMO_MODELS names a folder that holds them.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "tests/sharding/status_testing.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Succeeds;

class DemoModelsTest : public ::testing::Test {
 protected:
  void Open(const std::string& name) {
    const char* models = std::getenv("BEARING_DEMO_MODELS");
    if (models == nullptr) GTEST_SKIP() << "BEARING_DEMO_MODELS is not set";
    const std::string folder = std::string(models) + "/" + name;
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no such model: " << folder;
    auto reader = CheckpointReader::Open(folder);
    ASSERT_TRUE(Succeeds(reader));
    reader_ = *std::move(reader);
  }

  // Over any number of ranks the owned parts add up to the weights on disk.
  void CheckPlans() const {
    for (const int64_t ranks : {1, 2, 3, 4, 7}) {
      const auto plan = MakeShardPlan(reader_->config(), reader_->layout(), ranks);
      ASSERT_TRUE(Succeeds(plan));
      for (const ParamEntry& entry : reader_->layout().entries()) {
        int64_t owned = 0;
        for (int64_t rank = 0; rank < ranks; ++rank) owned += OwnedSliceOf(entry, *plan, rank).size();
        EXPECT_EQ(owned, entry.shape[static_cast<size_t>(entry.cut_axis)]) << entry.name;
      }
    }
  }

  std::unique_ptr<CheckpointReader> reader_;
};

TEST_F(DemoModelsTest, SmolLm2) {
  Open("smollm2-135m-instruct");
  if (reader_ == nullptr) return;
  EXPECT_EQ(reader_->config().num_layers(), 30);
  EXPECT_TRUE(reader_->config().tied_embeddings);
  EXPECT_EQ(reader_->layout().Find(ParamRole::kUnembedding), nullptr);
  CheckPlans();
}

TEST_F(DemoModelsTest, Qwen25Coder) {
  Open("qwen2.5-coder-0.5b-instruct");
  if (reader_ == nullptr) return;
  EXPECT_EQ(reader_->config().num_layers(), 24);
  EXPECT_TRUE(reader_->config().layers[0].attention.qkv_bias);
  EXPECT_NE(reader_->layout().Find(ParamRole::kUnembedding), nullptr);
  EXPECT_THAT(reader_->config().eos_token_ids, ::testing::ElementsAre(151645, 151643));
  CheckPlans();
}

}  // namespace
}  // namespace bearing::sharding
