// Qwen-1: folders with qwen.tiktoken and without tokenizer.json. make_qwen_golden.py wrote the expectations with tiktoken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "bridge/chat_tokenizer.h"
#include "tests/bridge/digest.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const nlohmann::json& Expected() {
  static const nlohmann::json expected = nlohmann::json::parse(std::ifstream(DataFile("qwen_expected.json")));
  return expected;
}

std::unique_ptr<ChatTokenizer> LoadOrDie(const std::string& folder) {
  auto tokenizer = ChatTokenizer::Load(folder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::vector<std::string> RenderedConversations(const ChatTokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const auto& conversation : nlohmann::json::parse(std::ifstream(DataFile("conversations.json")))) {
    std::vector<Message> messages;
    for (const auto& message : conversation["messages"]) messages.push_back({message[0], message[1]});
    const auto text = tokenizer.Render(messages, conversation["add_generation_prompt"]);
    EXPECT_TRUE(text.ok()) << text.status();
    texts.push_back(text.value_or(""));
  }
  return texts;
}

void ExpectIds(const ChatTokenizer& tokenizer, const nlohmann::json& expected) {
  const std::vector<std::string> texts = RenderedConversations(tokenizer);
  ASSERT_EQ(texts.size(), 200u);
  ASSERT_EQ(expected.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("conversation " + std::to_string(i));
    const auto ids = tokenizer.Encode(texts[i]);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(ids->size(), expected[i]["tokens"].get<size_t>());
    EXPECT_EQ(Digest(*ids), expected[i]["ids"].get<std::string>());
  }
}

TEST(QwenVocabularyTest, ConversationsEqualTiktoken) { ExpectIds(*LoadOrDie(DataFile("qwen1")), Expected()["small"]); }

TEST(QwenVocabularyTest, WordsThatNoMergeMakesAndSpecialTokensEqualTiktoken) {
  const auto tokenizer = LoadOrDie(DataFile("qwen1"));
  ASSERT_GE(Expected()["words"].size(), 7u);
  for (const auto& word : Expected()["words"]) {
    const auto ids = tokenizer->Encode(word["text"].get<std::string>());
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, word["ids"].get<std::vector<int32_t>>()) << word["text"];
  }
}

TEST(QwenVocabularyTest, SpecialTokensFollowTheRanks) {
  const auto tokenizer = LoadOrDie(DataFile("qwen1"));
  constexpr int32_t kRanks = 657;
  EXPECT_EQ(tokenizer->TokenId("<|endoftext|>"), kRanks);
  EXPECT_EQ(tokenizer->TokenId("<|im_start|>"), kRanks + 1);
  EXPECT_EQ(tokenizer->TokenId("<|im_end|>"), kRanks + 2);
  EXPECT_EQ(tokenizer->TokenId("<|extra_0|>"), kRanks + 3);
  EXPECT_EQ(tokenizer->TokenId("<|extra_204|>"), kRanks + 207);
  EXPECT_EQ(tokenizer->TokenId("<|extra_205|>"), -1);
}

TEST(QwenVocabularyTest, DecodesBytesBack) {
  const auto tokenizer = LoadOrDie(DataFile("qwen1"));
  for (const std::string& text : RenderedConversations(*tokenizer)) {
    // Text outside NFC comes back in it, so what is decoded must stay as it is from then on.
    const std::string once = *tokenizer->Decode(*tokenizer->Encode(text), /*skip_special_tokens=*/false);
    EXPECT_EQ(*tokenizer->Decode(*tokenizer->Encode(once), false), once);
  }
  const auto ids = *tokenizer->Encode("<|im_start|>naïve 🙂\r\n\x01<|im_end|>");
  EXPECT_EQ(*tokenizer->Decode(ids, false), "<|im_start|>naïve 🙂\r\n\x01<|im_end|>");
  EXPECT_EQ(*tokenizer->Decode(ids, true), "naïve 🙂\r\n\x01");
}

TEST(QwenVocabularyTest, TheTemplateIsBuiltInAndCanBeReplaced) {
  const std::vector<Message> question = {{"user", "Hi"}};
  const std::string chat = "<|im_start|>user\nHi<|im_end|>\n";
  const auto tokenizer = LoadOrDie(DataFile("qwen1"));
  EXPECT_EQ(*tokenizer->Render(question, true),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + chat + "<|im_start|>assistant\n");
  const std::vector<Message> whole = {{"system", ""}, {"user", "Hi"}, {"assistant", "Yes"}};
  EXPECT_EQ(*tokenizer->Render(whole, false),
            "<|im_start|>system\n<|im_end|>\n" + chat + "<|im_start|>assistant\nYes<|im_end|>\n");

  const TestFolder folder;
  std::filesystem::copy_file(DataFile("qwen1/qwen.tiktoken"), folder.path() + "/qwen.tiktoken");
  const std::string given = folder.Write("given.jinja", "given");
  EXPECT_EQ(*(*ChatTokenizer::Load(folder.path(), given))->Render(question, true), "given");
  folder.Write("chat_template.jinja", "of the folder");
  EXPECT_EQ(*LoadOrDie(folder.path())->Render(question, true), "of the folder");
}

TEST(QwenVocabularyTest, BadFilesNameFileAndLine) {
  const TestFolder folder;
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    absl::StrAppend(&bytes, absl::Base64Escape(std::string(1, static_cast<char>(byte))), " ", byte, "\n");
  }
  const auto message = [&](const std::string& text) {
    const std::string file = folder.Write("qwen.tiktoken", text);
    const absl::Status status = ChatTokenizer::Load(folder.path()).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    return std::string(status.message());
  };
  EXPECT_EQ(message(bytes + "!? 256\n").find("bad tiktoken file"), 0u);
  EXPECT_THAT(message(bytes + "!? 256\n"), AllOf(HasSubstr("base64"), HasSubstr("line=257")));
  EXPECT_THAT(message(bytes + "YWI=\n"), HasSubstr("line=257"));
  EXPECT_THAT(message(bytes + "YWI= x\n"), HasSubstr("line=257"));
  EXPECT_THAT(message(bytes + " 256\n"), AllOf(HasSubstr("1 to 4096 bytes"), HasSubstr("line=257")));
  EXPECT_THAT(message(bytes + "YQ== 256\n"), AllOf(HasSubstr("twice"), HasSubstr("line=257")));
  EXPECT_THAT(message(bytes + "YWI= 257\n"), AllOf(HasSubstr("ranks must be 0 to 256"), HasSubstr("rank=257")));
  EXPECT_THAT(message(bytes + "YWI= 3\n"), HasSubstr("ranks must be 0 to 256"));
  EXPECT_THAT(message("YQ== 0\n"), HasSubstr("a single byte has no token: byte=0"));
  EXPECT_THAT(message(""), HasSubstr("a single byte has no token"));
  folder.Write("qwen.tiktoken", bytes + "YWI= 256\r\n\n");
  EXPECT_EQ(LoadOrDie(folder.path())->Encode("abc")->size(), 2u);
}

// The bytes of a token as a byte-level vocabulary spells them.
std::string BytesOf(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    int code = static_cast<unsigned char>(text[i]);
    if (code >= 0xC0) code = (code & 0x1F) << 6 | (text[++i] & 0x3F);
    if (code >= 0x100) {
      int others = code - 0x100;
      code = -1;
      while (others >= 0) {
        ++code;
        if (code < '!' || (code > '~' && code < 0xA1) || code == 0xAD) --others;
      }
    }
    bytes += static_cast<char>(code);
  }
  return bytes;
}

TEST(QwenVocabularyTest, TheWholeVocabularyEqualsTiktokenAndTokenizerJson) {
  const char* models = std::getenv("BEARING_DEMO_MODELS");
  if (models == nullptr) GTEST_SKIP() << "BEARING_DEMO_MODELS is not set";
  const std::string model = std::string(models) + "/qwen2.5-coder-0.5b-instruct";
  if (!std::filesystem::exists(model + "/tokenizer.json")) GTEST_SKIP() << "no such model: folder=" << model;
  const TestFolder folder;
  std::string lines;
  const nlohmann::json vocabulary = nlohmann::json::parse(std::ifstream(model + "/tokenizer.json"))["model"]["vocab"];
  for (const auto& [text, rank] : vocabulary.items()) {
    absl::StrAppend(&lines, absl::Base64Escape(BytesOf(text)), " ", rank.get<int>(), "\n");
  }
  folder.Write("qwen.tiktoken", lines);
  const auto tokenizer = LoadOrDie(folder.path());
  EXPECT_EQ(tokenizer->TokenId("<|endoftext|>"), 151643);
  EXPECT_EQ(tokenizer->TokenId("<|extra_204|>"), 151850);
  ExpectIds(*tokenizer, Expected()["large"]);

  const auto same_vocabulary = LoadOrDie(model);
  size_t compared = 0;
  for (const std::string& text : RenderedConversations(*tokenizer)) {
    const std::vector<int32_t> ids = *tokenizer->Encode(text);
    EXPECT_EQ(*same_vocabulary->Encode(text), ids);
    compared += ids.size();
  }
  EXPECT_GT(compared, 10000u);
}

}  // namespace
}  // namespace bearing::bridge
