#include "jobs/report/html_text.h"

#include <gtest/gtest.h>

#include <limits>

namespace bearing::jobs {
namespace {

TEST(HtmlTextTest, EscapesMarkupControlCharactersAndBadBytes) {
  EXPECT_EQ(EscapeHtml("<script a=\"b\" c='d'>&</script>"), "&lt;script a=&quot;b&quot; c=&#39;d&#39;&gt;&amp;&lt;/script&gt;");
  EXPECT_EQ(EscapeHtml(std::string_view("a\0b\x1B[31m\n\t\x7F\xFFé", 14)), "a\uFFFDb\uFFFD[31m\n\t\uFFFD\uFFFDé");
}

TEST(HtmlTextTest, ShowsWhiteSpaceOfTokens) {
  EXPECT_EQ(VisibleToken("\n"), "⏎");
  EXPECT_EQ(VisibleToken(" I\t<"), "␣I⇥&lt;");
  EXPECT_EQ(VisibleToken(""), "∅");
}

TEST(HtmlTextTest, FormatsNumbers) {
  EXPECT_EQ(FormatFixed(-14.4193, 2), "−14.42");
  EXPECT_EQ(FormatFixed(-0.001, 2), "0.00");
  EXPECT_EQ(FormatFixed(std::numeric_limits<double>::quiet_NaN(), 2), "n/a");
  EXPECT_EQ(FormatShort(0.1), "0.1");
  EXPECT_EQ(FormatShort(-2), "−2");
  EXPECT_EQ(FormatPercent(0.9375), "93.8 %");
  EXPECT_EQ(FormatSeconds(0.421), "0.42 s");
  EXPECT_EQ(FormatSeconds(12.34), "12.3 s");
  EXPECT_EQ(FormatSeconds(185), "3 min 05 s");
  EXPECT_EQ(FormatSeconds(7260), "2 h 01 min");
  EXPECT_EQ(Coordinate(-1.25), "-1.2");
}

TEST(HtmlTextTest, ShortNumbers) {
  EXPECT_EQ(FormatShort(0.123456), "0.123");
  EXPECT_EQ(FormatShort(-1000), "−1000");
  EXPECT_EQ(FormatShort(123456.4), "123456");
  EXPECT_EQ(FormatShort(2e6), "2e+06");
}

}  // namespace
}  // namespace bearing::jobs
