#include "worker/comm/communicator.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/worker/communicator_conformance.h"
#include "tests/worker/grid_conformance.h"
#include "worker/comm/thread_communicator.h"
#include "worker/comm/watchdog.h"

namespace bearing::comm {
namespace {

class ThreadCommunicatorTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadCommunicatorTest, Conforms) {
  const absl::Status status = RunThreadRanks(GetParam(), testing::ExerciseCommunicator);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ThreadCommunicatorTest, SumsAreTheSameBits) {
  const absl::Status status = RunThreadRanks(GetParam(), testing::ExerciseBits);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(ThreadCommunicatorTest, CarriesGridsAndTheirWork) {
  const absl::Status status = RunThreadRanks(GetParam(), testing::ExerciseLayouts);
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCommunicatorTest, ::testing::Values(1, 2, 3, 4, 6));

TEST(SelfCommunicatorTest, Conforms) {
  SelfCommunicator comm;
  const absl::Status status = testing::ExerciseCommunicator(comm);
  EXPECT_TRUE(status.ok()) << status;
  const absl::Status layouts = testing::ExerciseLayouts(comm);
  EXPECT_TRUE(layouts.ok()) << layouts;
}

TEST(RunThreadRanksTest, AFailingRankWakesTheOthersAndIsTheOneReported) {
  const absl::Status status = RunThreadRanks(3, [](Communicator& comm) -> absl::Status {
    if (comm.rank() == 1) return absl::DataLossError("rank 1 read a bad shard");
    return comm.Barrier();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST(RunThreadRanksTest, AFailingRankWakesThoseThatWaitInOtherGroups) {
  const absl::Status status = RunThreadRanks(4, [](Communicator& world) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(Grid grid, MakeGrid(world, 2));
    if (world.rank() == 3) return absl::DataLossError("rank 3 read a bad shard");
    return world.rank() == 2 ? grid.tensor_parallel->Barrier() : world.Barrier();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST(RunThreadRanksTest, AThrowingRankIsAnError) {
  const absl::Status status = RunThreadRanks(2, [](Communicator& comm) -> absl::Status {
    if (comm.rank() == 0) throw std::runtime_error("boom");
    return comm.Barrier();
  });
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("boom"));
}

// A message of the watchdog, or nothing when it was silent for `wait`.
std::string ExpiryWithin(absl::Duration wait, absl::Duration limit, const std::function<void(Watchdog&)>& work) {
  absl::Notification expired;
  std::string message;
  Watchdog dog(/*rank=*/5, limit, [&](const std::string& what) {
    message = what;
    expired.Notify();
  });
  work(dog);
  return expired.WaitForNotificationWithTimeout(wait) ? message : "";
}

TEST(WatchdogTest, NamesRankStageGroupAndOperation) {
  const std::string group = "replicas";
  const std::string message = ExpiryWithin(absl::Seconds(30), absl::Milliseconds(50), [&](Watchdog& dog) {
    dog.SetStage("select");
    dog.Begin({.name = "Broadcast", .group = &group, .bytes = 12});
  });
  EXPECT_EQ(message, "rank=5 stage=select group=replicas operation=Broadcast bytes=12 did not finish within 50ms");
}

TEST(WatchdogTest, IsSilentBetweenOperations) {
  const std::string message = ExpiryWithin(absl::Seconds(1), absl::Milliseconds(50), [&](Watchdog& dog) {
    for (int i = 0; i < 3; ++i) {
      Watched watched(dog, {.name = "Barrier"});
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  EXPECT_EQ(message, "");
}

TEST(WatchdogTest, WithoutALimitWaitsForEver) {
  const std::string message =
      ExpiryWithin(absl::Seconds(1), absl::ZeroDuration(), [](Watchdog& dog) { dog.Begin({.name = "Barrier"}); });
  EXPECT_EQ(message, "");
}

}  // namespace
}  // namespace bearing::comm
