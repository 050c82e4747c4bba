#include "jobs/did_you_mean.h"

#include <gtest/gtest.h>

namespace bearing::jobs {
namespace {

const std::vector<std::string>& Names() {
  static const auto* names =
      new std::vector<std::string>{"kl_max", "induce_min", "prune_layers", "max_new_tokens", "layers", "validation"};
  return *names;
}

TEST(DidYouMeanTest, FindsTypos) {
  EXPECT_EQ(NearestName("kl_mx", Names()), "kl_max");
  EXPECT_EQ(NearestName("lk_max", Names()), "kl_max") << "neighbours swapped";
  EXPECT_EQ(NearestName("KlMax", Names()), "kl_max");
  EXPECT_EQ(NearestName("induce-min", Names()), "induce_min");
  EXPECT_EQ(NearestName("layer", Names()), "layers");
  EXPECT_EQ(NearestName("val", Names()), "validation");
}

TEST(DidYouMeanTest, LeavesWhatIsFarAlone) {
  EXPECT_EQ(NearestName("temperature", Names()), "");
  EXPECT_EQ(NearestName("", Names()), "");
  EXPECT_EQ(NearestName("x", Names()), "");
  EXPECT_EQ(NearestName(std::string(10000, 'k'), Names()), "");
}

}  // namespace
}  // namespace bearing::jobs
