// Every family of models renders and tokenizes as in transformers; make_family_golden.py wrote the expectations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bridge/chat_tokenizer.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

const nlohmann::json& Golden() {
  static const nlohmann::json golden = nlohmann::json::parse(std::ifstream(DataFile("family_golden.json")));
  return golden;
}

std::string Today(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[64];
  return std::string(text, std::strftime(text, sizeof(text), format.c_str(), &local));
}

std::string WithDate(std::string text, const std::string& date) {
  const std::string mark = "<today>";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at)) text.replace(at, mark.size(), date);
  return text;
}

class FamilyGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const auto& family : Golden()["families"]) {
      if (family["name"] == GetParam()) family_ = family;
    }
    ASSERT_FALSE(family_.is_null()) << "not in family_golden.json";
    const std::string tokenizer_file = "tokenizers/" + family_["tokenizer"].get<std::string>() + ".json";
    std::filesystem::copy_file(DataFile(tokenizer_file), folder_.path() + "/tokenizer.json");
    const std::string template_file = "templates/" + family_["template"].get<std::string>() + ".jinja";
    std::filesystem::copy_file(DataFile(template_file), folder_.path() + "/chat_template.jinja");
    folder_.Write("tokenizer_config.json", family_["tokenizer_config"].dump());
    folder_.Write("config.json", family_["config"].dump());
    auto tokenizer = ChatTokenizer::Load(folder_.path());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  void ExpectCase(const nlohmann::json& chat, bool add_generation_prompt, const nlohmann::json& expected) {
    std::vector<Message> messages;
    for (const auto& message : chat) messages.push_back({message[0], message[1]});
    const auto text = tokenizer_->Render(messages, add_generation_prompt);
    if (expected.contains("raises")) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(text.status().message()), testing::StartsWith(expected["raises"].get<std::string>()));
      return;
    }
    ASSERT_TRUE(text.ok()) << text.status();
    const std::string wanted = expected["text"];
    if (family_["today"].is_null()) {
      EXPECT_EQ(*text, wanted);
    } else if (const std::string format = family_["today"]; *text != WithDate(wanted, Today(format))) {
      // Midnight may have passed between the two readings of the clock; then the next one is right.
      EXPECT_EQ(*tokenizer_->Render(messages, add_generation_prompt), WithDate(wanted, Today(format)));
    }
    if (!expected.contains("ids")) return;
    const auto ids = tokenizer_->Encode(wanted);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected["ids"].get<std::vector<int32_t>>());
  }

  TestFolder folder_;
  nlohmann::json family_;
  std::unique_ptr<ChatTokenizer> tokenizer_;
};

TEST_P(FamilyGoldenTest, TextAndIdsEqualTransformers) {
  const nlohmann::json& chats = Golden()["chats"];
  const nlohmann::json& cases = family_["cases"];
  ASSERT_EQ(cases.size(), 2 * chats.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE("conversation " + std::to_string(i / 2) + (i % 2 == 1 ? " with the generation prompt" : ""));
    ExpectCase(chats[i / 2], i % 2 == 1, cases[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyGoldenTest,
                         ::testing::Values("llama2", "llama2_legacy", "yi", "llama3", "llama31", "llama32", "smollm2",
                                           "smollm3", "r1_llama", "r1_qwen", "mistral", "mistral_v3", "mixtral", "gemma",
                                           "gemma2", "gemma3", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "command_r"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bearing::bridge
