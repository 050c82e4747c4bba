// What a model folder may hold, and which of it counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "bridge/chat_tokenizer.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ModelFolderTest : public ::testing::Test {
 protected:
  void SetUp() override { folder_.CopyTiny("tokenizer.json"); }

  absl::Status LoadStatus(const std::string& template_file = "") {
    return ChatTokenizer::Load(folder_.path(), template_file).status();
  }

  absl::StatusOr<std::string> Rendered(const std::string& template_file = "") {
    auto tokenizer = ChatTokenizer::Load(folder_.path(), template_file);
    if (!tokenizer.ok()) return tokenizer.status();
    return (*tokenizer)->Render(std::vector<Message>{{"user", "hi"}}, false);
  }

  void ExpectFailure(const absl::Status& status, absl::StatusCode code, const std::string& part, const std::string& place) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(part), HasSubstr(place)));
  }

  TestFolder folder_;
};

TEST_F(ModelFolderTest, MissingFolderAndFilesAreNotFound) {
  const std::string missing = folder_.path() + "/missing";
  ExpectFailure(ChatTokenizer::Load(missing).status(), absl::StatusCode::kNotFound, "does not exist", missing);
  ExpectFailure(LoadStatus(missing), absl::StatusCode::kNotFound, "template file does not exist", missing);
  const TestFolder empty;
  ExpectFailure(ChatTokenizer::Load(empty.path()).status(), absl::StatusCode::kNotFound, "tokenizer.json", empty.path());
}

TEST_F(ModelFolderTest, AVocabularyOfAnotherKindIsRefusedWithTheWayOut) {
  for (const char* name : {"tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json"}) {
    const TestFolder folder;
    folder.Write(name, "x");
    const absl::Status status = ChatTokenizer::Load(folder.path()).status();
    ExpectFailure(status, absl::StatusCode::kFailedPrecondition, "has " + std::string(name) + " but no tokenizer.json",
                  "T.from_pretrained('" + folder.path() + "').save_pretrained('" + folder.path() + "')");
  }
}

TEST_F(ModelFolderTest, JsonNestedTooDeeplyIsAnError) {
  const std::string deep = std::string(100000, '[');
  folder_.Write("tokenizer_config.json", "{\"bos_token\": " + deep);
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "recursion limit", "tokenizer_config.json");
  folder_.Write("tokenizer_config.json", "{}");
  folder_.Write("tokenizer.json", deep);
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "bad tokenizer.json", folder_.path());
  folder_.Write("tokenizer.json", R"({"normalizer": {"type": "Sequence", "normalizers": )" + deep);
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "recursion limit", folder_.path());
}

TEST_F(ModelFolderTest, BadJsonNamesTheFile) {
  folder_.Write("tokenizer_config.json", "{\"bos_token\": ");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "bad JSON", "tokenizer_config.json");
  folder_.Write("tokenizer_config.json", "[]");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "want an object", "tokenizer_config.json");
  folder_.Write("tokenizer_config.json", R"({"chat_template": 3})");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "chat_template", "tokenizer_config.json");
  folder_.Write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "added_tokens_decoder", "tokenizer_config.json");
  folder_.Write("tokenizer_config.json", "{}");
  folder_.Write("special_tokens_map.json", "nothing");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "bad JSON", "special_tokens_map.json");
}

TEST_F(ModelFolderTest, BadTokenizerNamesTheFile) {
  for (const char* text : {"", "{", "{}", R"({"model": {"type": "Unknown"}})", "\xff"}) {
    folder_.Write("tokenizer.json", text);
    ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "bad tokenizer.json", folder_.path() + "/tokenizer.json");
  }
}

TEST_F(ModelFolderTest, AFolderWithoutATemplateLoadsButDoesNotRender) {
  ExpectFailure(Rendered().status(), absl::StatusCode::kFailedPrecondition, "no chat template", folder_.path());
  folder_.Write("tokenizer_config.json", R"({"chat_template": null})");
  ExpectFailure(Rendered().status(), absl::StatusCode::kFailedPrecondition, "no chat template", folder_.path());
  folder_.Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "x"}]})");
  ExpectFailure(Rendered().status(), absl::StatusCode::kFailedPrecondition, "no chat template", folder_.path());
}

TEST_F(ModelFolderTest, TemplatesComeFromTheFileThenTheConfig) {
  folder_.Write("tokenizer_config.json", R"({"chat_template": "config {{ messages[0].content }}"})");
  EXPECT_EQ(*Rendered(), "config hi");
  folder_.Write("tokenizer_config.json",
                R"({"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "list"}]})");
  EXPECT_EQ(*Rendered(), "list");
  folder_.Write("chat_template.jinja", "file");
  EXPECT_EQ(*Rendered(), "file");
  std::filesystem::create_directory(folder_.path() + "/additional_chat_templates");
  folder_.Write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(*Rendered(), "file");
  folder_.Write("additional_chat_templates/default.jinja", "default of the folder");
  EXPECT_EQ(*Rendered(), "default of the folder");
  EXPECT_EQ(*Rendered(folder_.Write("other.html", "given <{{ messages[0].content }}>{{ '&' }}")), "given <hi>&");
}

TEST_F(ModelFolderTest, ATemplateThatDoesNotParseNamesFileAndLine) {
  folder_.Write("chat_template.jinja", "a\nb\n{% for x in messages %}\n{{ x. }}\n{% endfor %}\n");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "does not parse",
                folder_.path() + "/chat_template.jinja line=4");
  folder_.Write("chat_template.jinja", "{% if true %}\r\n{% unknown %}");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "unknown", "chat_template.jinja line=2");
  const std::string given = folder_.Write("given.jinja", "\n\n{{ 'open }}");
  ExpectFailure(LoadStatus(given), absl::StatusCode::kInvalidArgument, "does not parse", given + " line=3");
  const std::string latin1 = folder_.Write("latin1.jinja", "caf\xe9");
  ExpectFailure(LoadStatus(latin1), absl::StatusCode::kInvalidArgument, "not UTF-8", latin1);
}

TEST_F(ModelFolderTest, ATemplateThatFailsNamesFileAndLine) {
  folder_.Write("tokenizer_config.json", R"({"chat_template": "\n{{ messages | no_such_filter }}"})");
  ExpectFailure(Rendered().status(), absl::StatusCode::kInvalidArgument, "no_such_filter",
                "tokenizer_config.json#chat_template line=2");
  folder_.Write("chat_template.jinja", "{{ nothing.at_all }}");
  ExpectFailure(Rendered().status(), absl::StatusCode::kInvalidArgument, "undefined", "line=1");
  folder_.Write("chat_template.jinja", "{{ cycle | tojson(colour=1) }}");
  ExpectFailure(Rendered().status(), absl::StatusCode::kInvalidArgument, "colour", "line=1");
}

TEST_F(ModelFolderTest, ARunawayTemplateEnds) {
  folder_.Write("chat_template.jinja", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
  ExpectFailure(Rendered().status(), absl::StatusCode::kResourceExhausted, "too many steps", "chat_template.jinja");
}

TEST_F(ModelFolderTest, ATemplateThatCallsItselfEnds) {
  folder_.Write("chat_template.jinja", "{% macro again() %}{{ again() }}{% endmacro %}\n{{ again() }}");
  ExpectFailure(Rendered().status(), absl::StatusCode::kInvalidArgument, "recursion limit", "chat_template.jinja line=1");
}

TEST_F(ModelFolderTest, ATemplateNestedTooDeeplyIsAnError) {
  constexpr size_t kMaxBytes = 128 << 10;
  for (const std::string piece : {"{% if true %}", "{% for x in messages %}", "{{ (", "{{ ["}) {
    std::string deep;
    while (deep.size() + piece.size() <= kMaxBytes) deep += piece[1] == '%' || deep.empty() ? piece : piece.substr(3);
    folder_.Write("chat_template.jinja", deep);
    ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "recursion", "chat_template.jinja line=1");
  }
}

TEST_F(ModelFolderTest, OperatorsNestedAsDeeplyAsATemplateIsLongAreHarmless) {
  constexpr size_t kMaxBytes = 128 << 10;
  struct Nest {
    std::string begin, piece, end;
  };
  for (const Nest& nest :
       {Nest{"{{ ", "not ", "1 }}"}, Nest{"{{ ", "-", "1 }}"}, Nest{"{{ 1", "+1", " }}"}, Nest{"{{ 1", "~1", " }}"},
        Nest{"{{ x", ".x", " }}"}, Nest{"{{ x", "|e", " }}"}, Nest{"{{ 1", "<1", " }}"}, Nest{"{{ 1", " if 1 else 1", " }}"},
        Nest{"{% if 0 %}", "{% elif 0 %}", "{% endif %}"}}) {
    std::string text = nest.begin;
    while (text.size() + nest.piece.size() + nest.end.size() <= kMaxBytes) text += nest.piece;
    folder_.Write("chat_template.jinja", text + nest.end);
    const absl::Status status = LoadStatus();
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << nest.piece << ": " << status;
  }
  folder_.Write("chat_template.jinja", std::string(kMaxBytes + 1, 'x'));
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "chat template is too long", "chat_template.jinja");
}

TEST_F(ModelFolderTest, TokensBeyondTheModelsVocabularyAreNamed) {
  folder_.Write("tokenizer_config.json", R"({"pad_token": "<|pad|>"})");
  const auto ids = [&] { return (*ChatTokenizer::Load(folder_.path()))->Encode("<|pad|>"); };
  EXPECT_EQ(ids()->front(), 65);
  folder_.Write("config.json", R"({"vocab_size": 66})");
  EXPECT_EQ(ids()->front(), 65);
  for (const char* config : {R"({"vocab_size": 65})", R"({"text_config": {"vocab_size": 65}})"}) {
    folder_.Write("config.json", config);
    ExpectFailure(ids().status(), absl::StatusCode::kInvalidArgument, "token=\"<|pad|>\" id=65 vocab_size=65", folder_.path());
    EXPECT_TRUE((*ChatTokenizer::Load(folder_.path()))->Encode("Hello").ok());
  }
  folder_.Write("config.json", "{");
  ExpectFailure(LoadStatus(), absl::StatusCode::kInvalidArgument, "bad JSON", "config.json");
}

TEST_F(ModelFolderTest, SpecialTokensComeFromConfigAndMap) {
  folder_.Write("chat_template.jinja", "{{ bos_token }} {{ eos_token }} {{ image_token }} {{ pad_token is defined }}");
  folder_.Write("tokenizer_config.json",
                R"({"bos_token": {"content": "<|start|>"}, "eos_token": "Hello", "pad_token": null, "add_bos_token": true,
                    "extra_special_tokens": {"image_token": "<|image|>"}})");
  EXPECT_EQ(*Rendered(), "<|start|> Hello <|image|> False");
  folder_.Write("special_tokens_map.json", R"({"eos_token": {"content": "<|end|>"}, "additional_special_tokens": ["<|x|>"]})");
  EXPECT_EQ(*Rendered(), "<|start|> <|end|> <|image|> False");
  auto tokenizer = ChatTokenizer::Load(folder_.path());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->Encode("<|x|><|image|>")->size(), 2u);
}

TEST_F(ModelFolderTest, TokensListedInTheConfigAreAdded) {
  folder_.Write("tokenizer_config.json",
                R"({"added_tokens_decoder": {"0": {"content": "<|start|>", "special": true},
                                             "65": {"content": "<|new|>", "special": false, "lstrip": true}}})");
  folder_.Write("special_tokens_map.json", R"({"eos_token": "<|unread|>"})");
  auto tokenizer = ChatTokenizer::Load(folder_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->TokenId("<|new|>"), 65);
  EXPECT_EQ((*tokenizer)->TokenId("<|unread|>"), -1);
  EXPECT_EQ((*tokenizer)->Encode("a  <|new|>")->size(), 2u);
}

}  // namespace
}  // namespace bearing::bridge
