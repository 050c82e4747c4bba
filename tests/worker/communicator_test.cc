#include "worker/comm/communicator.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/communicator_conformance.h"
#include "worker/comm/thread_communicator.h"

namespace bearing::comm {
namespace {

class ThreadCommunicatorTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadCommunicatorTest, Conforms) {
  const absl::Status status = RunThreadRanks(GetParam(), testing::ExerciseCommunicator);
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCommunicatorTest, ::testing::Values(1, 2, 3, 4));

TEST(SelfCommunicatorTest, Conforms) {
  SelfCommunicator comm;
  const absl::Status status = testing::ExerciseCommunicator(comm);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(RunThreadRanksTest, AFailingRankWakesTheOthersAndIsTheOneReported) {
  const absl::Status status = RunThreadRanks(3, [](Communicator& comm) -> absl::Status {
    if (comm.rank() == 1) return absl::DataLossError("rank 1 read a bad shard");
    return comm.Barrier();
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

}  // namespace
}  // namespace bearing::comm
