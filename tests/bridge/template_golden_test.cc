// Templates render to the text that transformers renders; make_template_golden.py wrote the cases.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "bridge/chat_tokenizer.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

TEST(TemplateGoldenTest, TextEqualsTransformers) {
  std::ifstream file(DataFile("template_golden.json"));
  const nlohmann::json golden = nlohmann::json::parse(file);
  std::vector<Message> messages;
  for (const auto& message : golden["messages"]) messages.push_back({message["role"], message["content"]});
  ASSERT_GE(golden["cases"].size(), 15u);

  const TestFolder folder;
  for (const auto& item : golden["cases"]) {
    SCOPED_TRACE(item["name"]);
    const auto tokenizer = ChatTokenizer::Load(DataFile("tiny"), folder.Write("case.jinja", item["template"]));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const auto text = (*tokenizer)->Render(messages, item["add_generation_prompt"]);
    if (item.contains("raises")) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(text.status().message()), testing::StartsWith(item["raises"].get<std::string>()));
    } else {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, item["text"].get<std::string>());
    }
  }
}

TEST(TemplateGoldenTest, StrftimeNowIsToday) {
  const TestFolder folder;
  const std::string file = folder.Write("date.jinja", "{{ strftime_now('%Y-%m-%d %d %B %Y') }}{{ strftime_now('') }}");
  const auto tokenizer = ChatTokenizer::Load(DataFile("tiny"), file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto text = (*tokenizer)->Render(std::vector<Message>{{"user", "a"}}, false);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_TRUE(std::regex_match(*text, std::regex("20\\d\\d-\\d\\d-\\d\\d \\d\\d [A-Z][a-z]+ 20\\d\\d"))) << *text;
}

}  // namespace
}  // namespace bearing::bridge
