// Token ids and decoded text of real models equal those of transformers; make_conversations.py wrote the expectations.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bridge/chat_tokenizer.h"
#include "tests/bridge/digest.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream file(DataFile(name));
  return nlohmann::json::parse(file);
}

class RealTokenizersTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const char* models = std::getenv("BEARING_DEMO_MODELS");
    if (models == nullptr) GTEST_SKIP() << "BEARING_DEMO_MODELS is not set: set it to the folder that holds " << GetParam();
    const std::string folder = std::string(models) + "/" + GetParam();
    if (!std::filesystem::exists(folder + "/tokenizer.json")) GTEST_SKIP() << "no such model: folder=" << folder;
    auto tokenizer = ChatTokenizer::Load(folder);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::unique_ptr<ChatTokenizer> tokenizer_;
};

TEST_P(RealTokenizersTest, ConversationsEqualTransformers) {
  const nlohmann::json conversations = ReadJson("conversations.json");
  const nlohmann::json expected = ReadJson("conversations_expected.json")["models"][GetParam()];
  ASSERT_EQ(conversations.size(), 200u);
  ASSERT_EQ(expected.size(), conversations.size());

  std::vector<std::string> texts;
  for (const auto& conversation : conversations) {
    std::vector<Message> messages;
    for (const auto& message : conversation["messages"]) messages.push_back({message[0], message[1]});
    const auto text = tokenizer_->Render(messages, conversation["add_generation_prompt"]);
    ASSERT_TRUE(text.ok()) << text.status();
    texts.push_back(*text);
  }
  const auto ids = tokenizer_->EncodeBatch(texts, 2);
  ASSERT_TRUE(ids.ok()) << ids.status();
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("conversation " + std::to_string(i));
    EXPECT_EQ((*ids)[i].size(), expected[i]["tokens"].get<size_t>());
    EXPECT_EQ(Digest((*ids)[i]), expected[i]["ids"].get<std::string>());
    EXPECT_EQ(Digest(*tokenizer_->Decode((*ids)[i], true)), expected[i]["text"].get<std::string>());
  }
}

TEST_P(RealTokenizersTest, LabelsAreReadable) {
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->TokenId("<|im_start|>")), "<|im_start|>");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->Encode("I")->front()), "I");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->Encode(" the")->front()), " the");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->Encode("\n")->front()), "\n");
}

INSTANTIATE_TEST_SUITE_P(Models, RealTokenizersTest, ::testing::Values("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"),
                         [](const auto& info) { return info.param.substr(0, info.param.find_first_of("0123456789")); });

}  // namespace
}  // namespace bearing::bridge
