// Files with questions, and what counts as an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "jobs/answer_set.h"
#include "jobs/choice_set.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(const std::string& content) {
  const TemporaryFolder folder;
  return std::string(LoadChoices(folder.Write("a.jsonl", content), 0).status().message());
}

TEST(ChoiceSetTest, ReadsIndexAndLetter) {
  const TemporaryFolder folder;
  const std::string file =
      folder.Write("a.jsonl",
                   "\xEF\xBB\xBF{\"question\": \"Q1\", \"choices\": [\"x\", \"yy\"], \"answer\": 1}\n\n"
                   "{\"question\": \"Q2\", \"choices\": [\"x\", \"y\", \"z\"], \"answer\": \"c\", \"id\": 7}\r\n");
  const auto items = LoadChoices(file, 0);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 2u);
  EXPECT_EQ((*items)[0].answer, 1u);
  EXPECT_EQ((*items)[1].answer, 2u);
  EXPECT_THAT((*items)[1].choices, ElementsAre("x", "y", "z"));
  EXPECT_EQ(LoadChoices(file, 1)->size(), 1u);
  EXPECT_THAT(std::string(LoadChoices(file, 3).status().message()), HasSubstr("found=2 count=3"));
}

TEST(ChoiceSetTest, MistakesNameFileAndLine) {
  const std::string good = "{\"question\": \"Q\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n";
  EXPECT_THAT(ErrorOf(good + "[1]\n"), HasSubstr("a.jsonl:2: expected an object, found array"));
  EXPECT_THAT(ErrorOf(good + "{\"question\""), HasSubstr("a.jsonl:2: not valid JSON"));
  EXPECT_THAT(ErrorOf("{\"choices\": []}\n"), HasSubstr("a.jsonl:1: no key \"question\""));
  EXPECT_THAT(ErrorOf("{\"question\": \"Q\", \"choices\": [\"x\"], \"answer\": 0}"), HasSubstr("a list of 2 to 26 texts"));
  EXPECT_THAT(ErrorOf("{\"question\": \"Q\", \"choices\": [\"x\", \"\"], \"answer\": 0}"), HasSubstr("not empty"));
  for (const char* wrong : {"2", "-1", "\"C\"", "\"no\"", "0.5", "null"}) {
    EXPECT_THAT(ErrorOf(std::string("{\"question\": \"Q\", \"choices\": [\"x\", \"y\"], \"answer\": ") + wrong + "}"),
                AllOf(HasSubstr("an index of 0 to 1 or a letter of A to B"), HasSubstr(wrong)));
  }
  EXPECT_THAT(ErrorOf("\n"), HasSubstr("no items"));
  EXPECT_THAT(ErrorOf("{\"question\": \"\xFF\"}"), HasSubstr("not valid UTF-8"));
}

TEST(ChoiceSetTest, TakesTheBestAsTheHarnessDoes) {
  EXPECT_EQ(BestChoice({-3, -1, -1}), 1u) << "the first on ties";
  EXPECT_EQ(BestChoice({-3, -4}), 0u);
  // By characters, not bytes: -4 / 2 is above -3 / 1 and below -3.5 / 2.
  EXPECT_EQ(BestNormalizedChoice({-3, -4}, {"a", "\xC3\xA4\xC3\xB6"}), 1u);
  EXPECT_EQ(BestNormalizedChoice({-3.5, -3}, {"\xC3\xA4\xC3\xB6", "a"}), 0u);
}

TEST(ChoiceSetTest, SpacesAtTheEndOfTheQuestionGoToTheChoice) {
  const ChoiceText plain = JoinChoice("Answer:", " ", "yes");
  EXPECT_EQ(plain.context, "Answer:");
  EXPECT_EQ(plain.continuation, " yes");
  const ChoiceText moved = JoinChoice("Answer:\n ", "", "yes");
  EXPECT_EQ(moved.context, "Answer:");
  EXPECT_EQ(moved.continuation, "\n yes");
}

TEST(AnswerSetTest, FindsTheLastNumberInOneSpelling) {
  EXPECT_EQ(ExtractNumber("16 - 3 = 13, so she has $1,234.50 left."), "1234.5");
  EXPECT_EQ(ExtractNumber("the answer is -7."), "-7");
  EXPECT_EQ(ExtractNumber("-$5"), "-5");
  EXPECT_EQ(ExtractNumber("007 and 0.250"), "0.25");
  EXPECT_EQ(ExtractNumber("-0.0"), "0");
  EXPECT_EQ(ExtractNumber("half is .5"), "0.5");
  EXPECT_EQ(ExtractNumber("5-3"), "3");
  EXPECT_EQ(ExtractNumber("1 2 3"), "3");
  EXPECT_EQ(ExtractNumber("50% of GPT4"), "50") << "digits inside a word are no number";
  EXPECT_EQ(ExtractNumber("no number"), "");
  EXPECT_EQ(ExtractNumber(""), "");
}

TEST(AnswerSetTest, TakesWhatStandsBehindTheLastMark) {
  EXPECT_EQ(ExtractNumber("He has 3 + 4 = 7.\n#### 7\nThat took 2 steps."), "7");
  EXPECT_EQ(ExtractNumber("3 + 4 = 7 #### 7"), "7");
  EXPECT_EQ(ExtractNumber("#### 1\n#### 2"), "2");
  EXPECT_EQ(ExtractNumber("it is 7 #### nothing"), "7") << "no number behind the mark";
}

TEST(AnswerSetTest, PatternsTakeTheLastMatch) {
  const auto letters = AnswerPattern::Parse("answer is \\(?([A-D])");
  ASSERT_TRUE(letters.ok()) << letters.status();
  EXPECT_EQ(letters->Extract("The answer is A. No, the answer is (B)."), "B");
  EXPECT_EQ(letters->Extract("unknown"), "");
  EXPECT_EQ(letters->Expected(" C\n"), "C") << "an answer that is not a whole sentence";
  EXPECT_EQ(letters->Expected("the answer is D"), "D");
  const auto whole = AnswerPattern::Parse("[a-z]+");
  EXPECT_EQ(whole->Extract("one TWO three"), "three");
  EXPECT_EQ(AnswerPattern::Parse("x*")->Extract("ab"), "") << "empty matches end";
  EXPECT_THAT(std::string(AnswerPattern::Parse("(").status().message()), HasSubstr("missing )"));
}

TEST(AnswerSetTest, ReadsTextsAndNumbers) {
  const TemporaryFolder folder;
  const auto items = LoadAnswers(folder.Write("a.jsonl",
                                              "{\"question\": \"1 + 1?\", \"answer\": \"1 + 1 = 2\\n#### 2\"}\n"
                                              "{\"question\": \"1 + 2?\", \"answer\": 3}\n"),
                                 0);
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ(ExtractNumber((*items)[0].answer), "2");
  EXPECT_EQ((*items)[1].answer, "3");
  EXPECT_THAT(std::string(LoadAnswers(folder.Write("b.jsonl", "{\"question\": \"Q\"}"), 0).status().message()),
              HasSubstr("b.jsonl:1: no key \"answer\""));
}

}  // namespace
}  // namespace bearing::jobs
