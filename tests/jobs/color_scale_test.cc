#include "jobs/report/color_scale.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bearing::jobs {
namespace {

using testing::HasSubstr;

TEST(ColorScaleTest, StepsAreEvenAndClamped) {
  EXPECT_EQ(ColorStep(-1), 0);
  EXPECT_EQ(ColorStep(-9), 0);
  EXPECT_EQ(ColorStep(0), kColorSteps / 2);
  EXPECT_EQ(ColorStep(1), kColorSteps - 1);
  EXPECT_EQ(ColorStep(9), kColorSteps - 1);
}

TEST(ColorScaleTest, TheSideOfTheThresholdAlwaysShows) {
  EXPECT_GT(ColorStep(1e-9), kColorSteps / 2);
  EXPECT_LT(ColorStep(-1e-9), kColorSteps / 2);
}

TEST(ColorScaleTest, TheEndsAreTheChosenColours) {
  const std::string light = ColorRules(/*dark=*/false);
  EXPECT_THAT(light, HasSubstr(".q0{fill:#0a4f9e}"));
  EXPECT_THAT(light, HasSubstr(".q7{fill:#eef0f2}"));
  EXPECT_THAT(light, HasSubstr(".q14{fill:#b44a06}"));
  EXPECT_NE(ColorRules(/*dark=*/true), light);
}

}  // namespace
}  // namespace bearing::jobs
