#include "jobs/prompt_csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bearing::jobs {
namespace {

using testing::ElementsAre;

std::string ErrorOf(std::string_view text) {
  const auto records = ParseCsv(text);
  return records.ok() ? "parsed" : std::string(records.status().message());
}

TEST(PromptCsvTest, ReadsQuotesLineBreaksAndCommas) {
  const auto records = ParseCsv("a,b\r\n\"x, \"\"y\"\"\",\"two\nlines\"\r\n,\"\"\n");
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 3u);
  EXPECT_THAT((*records)[0].fields, ElementsAre("a", "b"));
  EXPECT_THAT((*records)[1].fields, ElementsAre("x, \"y\"", "two\nlines"));
  EXPECT_THAT((*records)[2].fields, ElementsAre("", ""));
  EXPECT_EQ((*records)[1].line, 2u);
  EXPECT_EQ((*records)[2].line, 4u) << "a record counts the lines inside its quotes";
}

TEST(PromptCsvTest, TheLastLineMayLackItsEnd) {
  const auto records = ParseCsv("a\nb");
  ASSERT_TRUE(records.ok());
  EXPECT_THAT(records->back().fields, ElementsAre("b"));
  EXPECT_THAT(ParseCsv("a,b\n1,")->back().fields, ElementsAre("1", ""));
}

TEST(PromptCsvTest, RefusesWhatIsNotStrict) {
  EXPECT_EQ(ErrorOf("a,b\nx\"y,1\n"), "line 2: a quote inside a field that is not quoted");
  EXPECT_EQ(ErrorOf("a,b\n\"x\"y,1\n"), "line 2: text after the closing quote of a field");
  EXPECT_EQ(ErrorOf("a\nb\n\"c\nd\n"), "line 3: a quoted field is never closed");
  EXPECT_EQ(ErrorOf("a\rb\n"), "line 1: a carriage return without a line feed");
  EXPECT_EQ(ErrorOf("a,b\n1,2\n1,2,3\n"), "line 3: wrong number of fields: found=3 named in the first line=2");
  EXPECT_EQ(ErrorOf("a,b\n1\n"), "line 2: wrong number of fields: found=1 named in the first line=2");
}

}  // namespace
}  // namespace bearing::jobs
