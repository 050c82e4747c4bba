#include "cli/mpirun.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"

namespace bearing::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MpirunTest, CommandLine) {
  const std::string user = absl::StrJoin(MpirunArguments({.mpirun = "/bin/mpirun", .ranks = 3}, {"/bin/worker", "serve"}), " ");
  EXPECT_THAT(user, EndsWith(" -n 3 /bin/worker serve"));
  EXPECT_THAT(user, HasSubstr("--oversubscribe --bind-to none"));
  EXPECT_THAT(user, HasSubstr("-x OMP_NUM_THREADS -x OMP_WAIT_POLICY"));
  EXPECT_THAT(user, HasSubstr("--mca btl_base_warn_component_unused 0"));
  EXPECT_THAT(user, Not(HasSubstr("root")));
  const std::string root = absl::StrJoin(MpirunArguments({.mpirun = "mpirun", .ranks = 3, .is_root = true}, {"w"}), " ");
  EXPECT_THAT(root, HasSubstr("mpirun --allow-run-as-root "));
}

TEST(MpirunTest, SharesTheCoresOut) {
  EXPECT_EQ(ThreadsPerRank(0, 8, 2), 4);
  EXPECT_EQ(ThreadsPerRank(0, 2, 4), 1);
  EXPECT_EQ(ThreadsPerRank(6, 2, 4), 6);
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_EQ(ThreadEnvironment(3).at("OMP_NUM_THREADS"), "3");
  EXPECT_EQ(ThreadEnvironment(3).at("OMP_WAIT_POLICY"), "PASSIVE");
}

}  // namespace
}  // namespace bearing::cli
