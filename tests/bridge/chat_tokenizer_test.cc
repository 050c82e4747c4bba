#include "bridge/chat_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

using ::testing::HasSubstr;

class ChatTokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = ChatTokenizer::Load(DataFile("tiny"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::vector<int32_t> Ids(const std::vector<std::string>& tokens) const {
    std::vector<int32_t> ids;
    for (const std::string& token : tokens) ids.push_back(tokenizer_->TokenId(token));
    return ids;
  }

  std::unique_ptr<ChatTokenizer> tokenizer_;
};

TEST_F(ChatTokenizerTest, RendersTheFoldersTemplate) {
  const std::vector<Message> messages = {{"system", ""}, {"user", "Hello"}};
  EXPECT_EQ(*tokenizer_->Render(messages, false), "<|start|>system\n<|end|>\n<|start|>user\nHello<|end|>\n");
  EXPECT_EQ(*tokenizer_->Render(messages, true), "<|start|>system\n<|end|>\n<|start|>user\nHello<|end|>\n<|start|>assistant\n");
}

TEST_F(ChatTokenizerTest, RenderPassesTheTemplatesOwnMessage) {
  const auto text = tokenizer_->Render(std::vector<Message>{{"user", "a"}, {"system", "b"}}, false);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(text.status().message(), HasSubstr("the system message must come first"));
  EXPECT_THAT(text.status().message(), HasSubstr("tiny/chat_template.jinja line=3"));
}

TEST_F(ChatTokenizerTest, RenderRefusesAnEmptyConversation) {
  EXPECT_EQ(tokenizer_->Render({}, true).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTokenizerTest, EncodesWithMergesAndSpecialTokens) {
  EXPECT_EQ(*tokenizer_->Encode("<|start|>Hello world!<|end|>"), Ids({"<|start|>", "Hello", "Ġworld", "!", "<|end|>"}));
  EXPECT_EQ(*tokenizer_->Encode("é"), Ids({"Ã©"}));
  EXPECT_TRUE(tokenizer_->Encode("")->empty());
}

TEST_F(ChatTokenizerTest, AddsSpecialTokensOnlyWhenAsked) {
  EXPECT_EQ(*tokenizer_->Encode("Hello", /*add_special_tokens=*/true), Ids({"<|start|>", "Hello"}));
  EXPECT_EQ(*tokenizer_->Encode("Hello"), Ids({"Hello"}));
}

TEST_F(ChatTokenizerTest, IgnoresStoredPaddingAndTruncation) {
  EXPECT_EQ(tokenizer_->Encode("Hello world! Hello world!")->size(), 7u);
}

TEST_F(ChatTokenizerTest, EncodeRefusesTextThatIsNotUtf8) {
  const auto ids = tokenizer_->Encode("Hello \xff");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ids.status().message(), HasSubstr("not UTF-8"));
}

TEST_F(ChatTokenizerTest, EncodeBatchKeepsTheOrder) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(std::string(i % 7, 'a') + "Hello world");
  for (int threads : {1, 4, 500}) {
    const auto batch = tokenizer_->EncodeBatch(texts, threads);
    ASSERT_TRUE(batch.ok()) << batch.status();
    ASSERT_EQ(batch->size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ((*batch)[i], *tokenizer_->Encode(texts[i])) << i;
  }
  EXPECT_TRUE(tokenizer_->EncodeBatch({}, 3)->empty());
}

TEST_F(ChatTokenizerTest, EncodeBatchNamesTheTextThatFails) {
  const std::vector<std::string> texts = {"a", "b\xc3", "c"};
  const auto batch = tokenizer_->EncodeBatch(texts, 2);
  EXPECT_EQ(batch.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(batch.status().message(), HasSubstr("text=1"));
  EXPECT_EQ(tokenizer_->EncodeBatch(texts, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTokenizerTest, DecodesWithAndWithoutSpecialTokens) {
  const std::vector<int32_t> ids = *tokenizer_->Encode("<|start|>Hello world é🙂<|end|>");
  EXPECT_EQ(*tokenizer_->Decode(ids, false), "<|start|>Hello world é🙂<|end|>");
  EXPECT_EQ(*tokenizer_->Decode(ids, true), "Hello world é🙂");
  EXPECT_EQ(*tokenizer_->Decode({}, true), "");
}

TEST_F(ChatTokenizerTest, DecodeSkipsThePaddingOfAVocabulary) {
  EXPECT_EQ(*tokenizer_->Decode(std::vector<int32_t>{1000, tokenizer_->TokenId("Hello")}, false), "Hello");
  EXPECT_EQ(tokenizer_->Decode(std::vector<int32_t>{-1}, false).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTokenizerTest, TokenTextIsDecoded) {
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->TokenId("Ġworld")), " world");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->TokenId("Ċ")), "\n");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->TokenId("Ġ")), " ");
  EXPECT_EQ(*tokenizer_->TokenText(tokenizer_->TokenId("Ã")), "\xEF\xBF\xBD");
  EXPECT_EQ(*tokenizer_->TokenText(0), "<|start|>");
  for (int32_t id : {-1, 1000}) {
    const auto text = tokenizer_->TokenText(id);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(text.status().message(), HasSubstr("id=" + std::to_string(id)));
  }
}

TEST_F(ChatTokenizerTest, TokenIdFindsAddedTokensAndNothingElse) {
  EXPECT_EQ(tokenizer_->TokenId("<|end|>"), 1);
  EXPECT_EQ(tokenizer_->TokenId("<|pad|>"), 65);
  EXPECT_EQ(tokenizer_->TokenId("Hello world"), -1);
  EXPECT_EQ(tokenizer_->TokenId(""), -1);
  EXPECT_EQ(tokenizer_->TokenId("\xff"), -1);
}

}  // namespace
}  // namespace bearing::bridge
