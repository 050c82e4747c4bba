#include "cli/group_exit.h"

#include <gtest/gtest.h>

namespace bearing::cli {
namespace {

TEST(GroupExitTest, ReadsTheSignalThatMpirunNames) {
  const GroupExit exit =
      ReadGroupExit(137 << 8, {"[host:1] noise",
                               "mpirun noticed that process rank 3 with PID 0 on node worker-1 exited on signal "
                               "11 (Segmentation fault)."});
  EXPECT_EQ(exit.rank, 3);
  EXPECT_EQ(exit.signal, 11);
  EXPECT_EQ(exit.Text(), "rank 3 was ended by signal 11");
}

TEST(GroupExitTest, ReadsTheExitCodeThatMpirunNames) {
  const GroupExit exit = ReadGroupExit(75 << 8, {"  Process name: [[53512,1],1]", "  Exit code:    75"});
  EXPECT_EQ(exit.rank, 1);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_EQ(exit.exit_status, 75);
  EXPECT_EQ(exit.Text(), "rank 1 exit status 75");
}

TEST(GroupExitTest, FallsBackToMpirunsOwnEnd) {
  EXPECT_EQ(ReadGroupExit(5 << 8, {"nothing of use"}).exit_status, 5);
  EXPECT_EQ(ReadGroupExit(9, {}).signal, 9);
  EXPECT_TRUE(ReadGroupExit(0, {}).ok());
}

}  // namespace
}  // namespace bearing::cli
