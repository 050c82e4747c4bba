#include "sharding/dtype.h"

#include "gtest/gtest.h"

namespace bearing::sharding {
namespace {

TEST(DTypeTest, NamesAndSizesOfTheFormat) {
  EXPECT_EQ(DTypeName(DType::kBF16), "BF16");
  EXPECT_EQ(DTypeName(DType::kF8E4M3), "F8_E4M3");
  EXPECT_EQ(DTypeSize(DType::kBool), 1);
  EXPECT_EQ(DTypeSize(DType::kF8E5M2), 1);
  EXPECT_EQ(DTypeSize(DType::kBF16), 2);
  EXPECT_EQ(DTypeSize(DType::kF32), 4);
  EXPECT_EQ(DTypeSize(DType::kU64), 8);
}

TEST(DTypeTest, EveryNameLeadsBack) {
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(DTypeFromName(DTypeName(dtype)), dtype);
  }
}

TEST(DTypeTest, OtherNamesAreRefused) {
  for (const std::string_view name : {"", "bf16", "BF16 ", "F4", "C64", "I128"}) {
    EXPECT_EQ(DTypeFromName(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace bearing::sharding
