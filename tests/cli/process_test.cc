#include "cli/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ProcessTest : public ::testing::Test {
 protected:
  absl::StatusOr<ChildProcess> Shell(const std::string& script) {
    return ChildProcess::Start({.arguments = {"/bin/sh", "-c", script}, .environment = {{"COLOUR", "blue"}}, .log_path = log_});
  }

  // Waits for the script to write a line.
  std::string FirstLine() {
    for (int i = 0; i < 500 && LastLines(log_, 1).empty(); ++i) absl::SleepFor(absl::Milliseconds(20));
    const auto lines = LastLines(log_, 1);
    return lines.empty() ? "" : lines[0];
  }

  bearing::testing::TempFolder folder_;
  std::string log_ = folder_ / "log";
};

bool Lives(const std::string& pid) { return kill(std::stoi(pid), 0) == 0; }

TEST_F(ProcessTest, RunsWithItsVariablesAndLog) {
  auto child = Shell("echo $COLOUR; echo oops >&2; exit 3");
  ASSERT_TRUE(child.ok()) << child.status();
  while (!child->Poll().has_value()) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(DescribeWaitStatus(*child->Poll()), "exit status 3");
  EXPECT_THAT(LastLines(log_, 10), ElementsAre("blue", "oops"));
  EXPECT_THAT(LastLines(log_, 1), ElementsAre("oops"));
}

TEST_F(ProcessTest, AMissingProgramIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(ChildProcess::Start({.arguments = {"/nowhere"}, .environment = {}, .log_path = log_}).status()));
}

TEST_F(ProcessTest, StopEndsTheWholeGroupEvenWhenItDoesNotListen) {
  auto child = Shell("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
  ASSERT_TRUE(child.ok()) << child.status();
  const std::string grandchild = FirstLine();
  ASSERT_NE(grandchild, "");
  child->Stop(absl::Milliseconds(200));
  ASSERT_TRUE(AdoptOrphans().ok());
  for (int i = 0; i < 100 && Lives(grandchild); ++i) {
    waitpid(-1, nullptr, WNOHANG);
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_FALSE(Lives(grandchild));
}

TEST_F(ProcessTest, KillChildrenFindsOrphansOfOtherGroups) {
  ASSERT_TRUE(AdoptOrphans().ok());
  auto child = Shell("setsid sleep 1000 & echo $!; sleep 0.2");
  ASSERT_TRUE(child.ok()) << child.status();
  const std::string orphan = FirstLine();
  ASSERT_NE(orphan, "");
  while (!child->Poll().has_value()) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_TRUE(Lives(orphan));
  KillChildren();
  EXPECT_FALSE(Lives(orphan));
}

TEST_F(ProcessTest, TheDestructorKills) {
  pid_t pid = -1;
  {
    auto child = Shell("sleep 1000");
    ASSERT_TRUE(child.ok()) << child.status();
    pid = child->pid();
  }
  EXPECT_FALSE(Lives(absl::StrCat(pid)));
}

TEST_F(ProcessTest, FindsPrograms) {
  EXPECT_TRUE(FindInPath("sh").ok());
  EXPECT_TRUE(absl::IsNotFound(FindInPath("no-such-program").status()));
  EXPECT_TRUE(absl::IsNotFound(FindSibling("no-such-program", "BEARING_NOT_SET").status()));
  setenv("BEARING_TEST_PROGRAM", "/bin/sh", 1);
  EXPECT_EQ(FindSibling("anything", "BEARING_TEST_PROGRAM").value_or(""), "/bin/sh");
  unsetenv("BEARING_TEST_PROGRAM");
  EXPECT_THAT(LastLines("/nowhere", 5), IsEmpty());
}

TEST(DescribeWaitStatusTest, NamesTheSignal) { EXPECT_EQ(DescribeWaitStatus(SIGKILL), "signal 9 (Killed)"); }

}  // namespace
}  // namespace bearing::cli
