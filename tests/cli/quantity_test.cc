#include "cli/quantity.h"

#include <gtest/gtest.h>

#include "tests/sharding/status_testing.h"

namespace bearing::cli {
namespace {

TEST(QuantityTest, BytesAreReadAsPeopleWriteThem) {
  EXPECT_DOUBLE_EQ(*ParseBytes("80GiB"), 80.0 * (int64_t{1} << 30));
  EXPECT_DOUBLE_EQ(*ParseBytes("50GB"), 50e9);
  EXPECT_DOUBLE_EQ(*ParseBytes("2.5 TB"), 2.5e12);
  EXPECT_DOUBLE_EQ(*ParseBytes("512KiB"), 512 * 1024);
  EXPECT_DOUBLE_EQ(*ParseBytes("1000"), 1000);
  EXPECT_DOUBLE_EQ(*ParseBytes("7B"), 7);
  for (const char* bad : {"", "GiB", "-1GiB", "0", "80Gi", "80G", "80 gigabytes", "inf", "80GiBs", "1XB"}) {
    EXPECT_TRUE(testing::Fails(ParseBytes(bad), absl::StatusCode::kInvalidArgument, "80GiB")) << bad;
  }
}

TEST(QuantityTest, NumbersHaveThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(80.0 * (int64_t{1} << 30)), "80.0 GiB");
  EXPECT_EQ(FormatBytes(131.4 * (int64_t{1} << 30)), "131 GiB");
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(61), "61");
  EXPECT_EQ(FormatCount(70.55e9), "70.5 G");
  EXPECT_EQ(FormatCount(999999), "1.00 M");
  EXPECT_EQ(FormatDuration(0), "0 s");
  EXPECT_EQ(FormatDuration(0.12), "0.12 s");
  EXPECT_EQ(FormatDuration(59.6), "60 s");
  EXPECT_EQ(FormatDuration(125), "2 min 5 s");
  EXPECT_EQ(FormatDuration(7500), "2 h 5 min");
  EXPECT_EQ(FormatDuration(3 * 86400 + 7200), "3 d 2 h");
}

}  // namespace
}  // namespace bearing::cli
