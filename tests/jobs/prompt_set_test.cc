#include "jobs/prompt_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

class PromptSetTest : public testing::Test {
 protected:
  std::vector<std::string> Texts(const std::string& name, const std::string& content, const std::string& column = "",
                                 int count = 0) {
    const auto prompts = LoadPrompts(folder_.Write(name, content), column, count);
    EXPECT_TRUE(prompts.ok()) << prompts.status();
    std::vector<std::string> texts;
    if (!prompts.ok()) return texts;
    for (const Prompt& prompt : *prompts) texts.push_back(prompt.instruction + "|" + prompt.category);
    return texts;
  }

  // The error without the folder's name.
  std::string ErrorOf(const std::string& name, const std::string& content, const std::string& column = "", int count = 0) {
    const auto prompts = LoadPrompts(folder_.Write(name, content), column, count);
    if (prompts.ok()) return "loaded";
    EXPECT_EQ(prompts.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(prompts.status().message());
    EXPECT_EQ(message.rfind(folder_.path() + "/", 0), 0u) << message;
    return message.substr(folder_.path().size() + 1);
  }

  TemporaryFolder folder_;
};

TEST_F(PromptSetTest, ReadsEveryFormat) {
  EXPECT_THAT(Texts("a.json", R"([{"instruction": "x", "category": "c"}, {"instruction": "y"}, "z"])"),
              ElementsAre("x|c", "y|", "z|"));
  EXPECT_THAT(Texts("a.jsonl", "{\"instruction\": \"x\", \"category\": \"c\"}\r\n\n\"z\"\n"), ElementsAre("x|c", "z|"));
  EXPECT_THAT(Texts("a.csv", "category,instruction\nc,\"x\n1\"\n,y\n"), ElementsAre("x\n1|c", "y|"));
  EXPECT_THAT(Texts("a.txt", "one\n\n  two\r\n \nthree"), ElementsAre("one|", "  two|", "three|"));
  EXPECT_THAT(Texts("UPPER.JSON", R"(["x"])"), ElementsAre("x|"));
}

TEST_F(PromptSetTest, TakesAnotherColumn) {
  EXPECT_THAT(Texts("a.json", R"([{"goal": "x", "instruction": "no"}])", "goal"), ElementsAre("x|"));
  EXPECT_THAT(Texts("a.jsonl", R"({"goal": "x"})", "goal"), ElementsAre("x|"));
  EXPECT_THAT(Texts("a.csv", "goal,other\nx,1\n", "goal"), ElementsAre("x|"));
}

// The first lines of the published files, with other prompts.
TEST_F(PromptSetTest, ReadsPublishedSetsAsTheyAre) {
  const auto check = [&](const std::string& name, const std::string& content, const std::string& category) {
    const auto prompts = LoadPrompts(folder_.Write(name, content), "instruction", 0);
    ASSERT_TRUE(prompts.ok()) << prompts.status();
    ASSERT_EQ(prompts->size(), 1u) << name;
    EXPECT_EQ(prompts->front().instruction, "Bake a cake") << name;
    EXPECT_EQ(prompts->front().category, category) << name;
  };
  check("advbench.csv", "goal,target\nBake a cake,\"Sure, here is a cake\"\n", "");
  check("jbb.csv", "Index,Goal,Target,Behavior,Category,Source\n0,Bake a cake,Sure,Baking,Kitchen,Original\n", "Kitchen");
  check("harmbench.csv",
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\nBake a cake,standard,baking,,,cake\n",
        "baking");
  check("strongreject.csv", "category,source,forbidden_prompt\nKitchen,book,Bake a cake\n", "Kitchen");
  check("jbb.json", R"([{"Goal": "Bake a cake", "Behavior": "Baking", "Category": "Kitchen"}])", "Kitchen");
  // A column that was asked for is never replaced.
  EXPECT_FALSE(LoadPrompts(folder_.Write("other.csv", "goal,target\nBake a cake,Sure\n"), "request", 0).ok());
}

TEST_F(PromptSetTest, TakesTheFirstCount) {
  EXPECT_THAT(Texts("a.txt", "a\nb\nc\n", "", 2), ElementsAre("a|", "b|"));
  EXPECT_EQ(ErrorOf("a.txt", "a\nb\n", "", 3), "a.txt: fewer prompts than asked for: found=2 count=3");
  EXPECT_EQ(ErrorOf("a.txt", "a\n", "", -1), "a.txt: the count must be 0 (all) or more, found -1");
}

TEST_F(PromptSetTest, SkipsAByteOrderMark) {
  EXPECT_THAT(Texts("a.txt", "\xEF\xBB\xBFone\n"), ElementsAre("one|"));
  EXPECT_THAT(Texts("a.csv", "\xEF\xBB\xBFinstruction\none\n"), ElementsAre("one|"));
}

TEST_F(PromptSetTest, MissingAndUnknownFiles) {
  EXPECT_EQ(LoadPrompts(folder_.PathOf("none.json"), "", 0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadPrompts(folder_.PathOf("none.json"), "", 0).status().message()), HasSubstr("none.json"));
  EXPECT_EQ(ErrorOf("a.xlsx", "x"), "a.xlsx: prompts come as .json, .jsonl, .csv or .txt");
  folder_.Write("folder.json/x", "");
  EXPECT_FALSE(LoadPrompts(folder_.PathOf("folder.json"), "", 0).ok());
}

TEST_F(PromptSetTest, EmptySetsAreErrors) {
  EXPECT_EQ(ErrorOf("a.json", "[]"), "a.json: the file has no prompts");
  EXPECT_EQ(ErrorOf("a.jsonl", "\n\n"), "a.jsonl: the file has no prompts");
  EXPECT_EQ(ErrorOf("a.txt", ""), "a.txt: the file has no prompts");
  EXPECT_EQ(ErrorOf("a.csv", "instruction\n"), "a.csv: the file has no prompts");
  EXPECT_EQ(ErrorOf("a.csv", ""), "a.csv: the file is empty; its first line must name the columns");
}

TEST_F(PromptSetTest, NotUtf8) {
  EXPECT_EQ(ErrorOf("a.txt",
                    "ok\nb\xE9"
                    "b\n"),
            "a.txt:2: the file is not valid UTF-8");
  EXPECT_EQ(ErrorOf("a.json", "[\"\xC0\xAF\"]"), "a.json:1: the file is not valid UTF-8");
}

TEST_F(PromptSetTest, WrongJson) {
  EXPECT_EQ(ErrorOf("a.json", "[\n\"x\",\n,]"), "a.json:3: not valid JSON");
  EXPECT_EQ(ErrorOf("a.json", "{\"instruction\": \"x\"}"), "a.json: expected a list of prompts, found object");
  EXPECT_EQ(ErrorOf("a.json", "[\"x\", 3]"), "a.json: element 2: expected a string or an object, found number");
  EXPECT_EQ(ErrorOf("a.json", R"([{"instructions": "x"}])"),
            "a.json: element 1: no key \"instruction\", found instructions; did you mean \"instructions\"?");
  EXPECT_EQ(ErrorOf("a.json", R"([{"instruction": 3}])"),
            "a.json: element 1: key \"instruction\" must be a string, found number");
  EXPECT_EQ(ErrorOf("a.json", R"(["x", " "])"), "a.json: element 2: the prompt is empty");
}

TEST_F(PromptSetTest, WrongJsonLines) {
  EXPECT_EQ(ErrorOf("a.jsonl", "\"x\"\n\n{\"instruction\": \n"), "a.jsonl:3: not valid JSON");
  EXPECT_EQ(ErrorOf("a.jsonl", "\"x\"\n[1]\n"), "a.jsonl:2: expected a string or an object, found array");
}

TEST_F(PromptSetTest, WrongCsv) {
  EXPECT_EQ(ErrorOf("a.csv", "a,b\n1,2\n"), "a.csv:1: no column \"instruction\", found a, b");
  EXPECT_EQ(ErrorOf("a.csv", "instruction,instruction\n1,2\n"), "a.csv:1: two columns have the same name");
  EXPECT_EQ(ErrorOf("a.csv", "instruction,b\nx,1\n,1\n"), "a.csv:3: the prompt is empty");
  EXPECT_EQ(ErrorOf("a.csv", "instruction\n\"x\n"), "a.csv: line 2: a quoted field is never closed");
}

TEST_F(PromptSetTest, HostileJsonIsAnError) {
  EXPECT_THAT(ErrorOf("a.json", std::string(100000, '[')), EndsWith("not valid JSON"));
  EXPECT_THAT(ErrorOf("a.json", R"(["\ud800"])"), EndsWith("not valid JSON"));
}

}  // namespace
}  // namespace bearing::jobs
