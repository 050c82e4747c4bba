#include "jobs/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace bearing::jobs {
namespace {

TEST(Utf8Test, AcceptsEveryLengthOfSequence) {
  EXPECT_EQ(FirstInvalidUtf8(""), std::string_view::npos);
  EXPECT_EQ(FirstInvalidUtf8("aé€😀\xF4\x8F\xBF\xBF"), std::string_view::npos);
}

TEST(Utf8Test, FindsTheFirstBadByte) {
  EXPECT_EQ(FirstInvalidUtf8("ab\xFF"), 2u);
  EXPECT_EQ(FirstInvalidUtf8("a\x80"), 1u) << "a continuation byte alone";
  EXPECT_EQ(FirstInvalidUtf8("\xC0\xAF"), 0u) << "an overlong form";
  EXPECT_EQ(FirstInvalidUtf8("\xE0\x9F\xBF"), 0u) << "an overlong form";
  EXPECT_EQ(FirstInvalidUtf8("\xED\xA0\x80"), 0u) << "a surrogate";
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x90\x80\x80"), 0u) << "beyond U+10FFFF";
  EXPECT_EQ(FirstInvalidUtf8("x\xE2\x82"), 1u) << "cut off";
}

TEST(Utf8Test, ReplacesBadBytesOnly) { EXPECT_EQ(ReplaceInvalidUtf8("é\xFFz\xE2\x82"), "é\uFFFDz\uFFFD\uFFFD"); }

TEST(Utf8Test, CountsLines) {
  EXPECT_EQ(LineOfOffset("a\nb\nc", 0), 1u);
  EXPECT_EQ(LineOfOffset("a\nb\nc", 4), 3u);
  EXPECT_EQ(LineOfOffset("a\n", 100), 2u);
}

TEST(Utf8Test, ShortensByCharacters) {
  EXPECT_EQ(Shorten("été", 3), "été");
  EXPECT_EQ(Shorten("étés", 3), "été…");
}

}  // namespace
}  // namespace bearing::jobs
