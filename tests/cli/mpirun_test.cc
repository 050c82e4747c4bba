#include "cli/mpirun.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_join.h"
#include "tests/sharding/temp_folder.h"

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

TEST(MpirunTest, RemovesWhatAKilledMpirunLeaves) {
  namespace fs = std::filesystem;
  const testing::TempFolder folder, elsewhere;
  const fs::path session = folder / ("ompi.host." + std::to_string(geteuid()));
  fs::create_directories(session / "pid.77777" / "0");
  fs::create_directories(session / "pid.7");
  fs::create_directories(fs::path(folder / "ompi.host.4294967") / "pid.77777");
  fs::create_directories(fs::path(elsewhere / "pid.77777"));
  fs::create_directory_symlink(elsewhere.path(), folder / ("ompi.link." + std::to_string(geteuid())));
  const char* const before = std::getenv("TMPDIR");
  const std::string kept = before == nullptr ? "" : before;
  setenv("TMPDIR", folder.path().c_str(), 1);
  RemoveSessionFolder(77777);
  before == nullptr ? unsetenv("TMPDIR") : setenv("TMPDIR", kept.c_str(), 1);
  EXPECT_FALSE(fs::exists(session / "pid.77777"));
  EXPECT_TRUE(fs::exists(session / "pid.7")) << "of another mpirun";
  EXPECT_TRUE(fs::exists(fs::path(folder / "ompi.host.4294967") / "pid.77777")) << "of another user";
  EXPECT_TRUE(fs::exists(elsewhere / "pid.77777")) << "behind a link";
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
