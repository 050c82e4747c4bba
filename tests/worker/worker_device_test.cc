#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "sharding/status_macros.h"
#include "worker/comm/cuda_backend.h"
#include "worker/comm/thread_communicator.h"
#include "worker/device.h"
#include "worker/memory.h"

namespace bearing::worker {
namespace {

using ::testing::HasSubstr;

TEST(DeviceChoiceTest, Names) {
  EXPECT_EQ(DeviceChoiceFromName("auto"), DeviceChoice::kAuto);
  EXPECT_EQ(DeviceChoiceFromName("cpu"), DeviceChoice::kCpu);
  EXPECT_EQ(DeviceChoiceFromName("cuda"), DeviceChoice::kCuda);
  EXPECT_FALSE(DeviceChoiceFromName("tpu").has_value());
}

TEST(PlaceGroupTest, WithoutADeviceAutoTakesTheCpuAndCudaIsRefusedOnEveryRank) {
  std::string why;
  if (comm::CudaAvailable(&why)) GTEST_SKIP() << "there is a CUDA device";
  const absl::Status status = comm::RunThreadRanks(2, [&why](comm::Communicator& world) -> absl::Status {
    for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCpu}) {
      BEARING_ASSIGN_OR_RETURN(const Placement placement, PlaceGroup(choice, world, absl::Minutes(1)));
      EXPECT_EQ(placement.on_device, nullptr);
      EXPECT_EQ(placement.name, "cpu");
      EXPECT_EQ(placement.why_cpu, choice == DeviceChoice::kAuto ? why : "");
    }
    const absl::Status refused = PlaceGroup(DeviceChoice::kCuda, world, absl::Minutes(1)).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(why));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(RankMemoryTest, RanksShareTheHost) {
  comm::SelfCommunicator self;
  const auto alone = RankMemoryBytes(self, 1);
  const auto shared = RankMemoryBytes(self, 4);
  ASSERT_TRUE(alone.ok() && shared.ok());
  EXPECT_GT(*alone, 0);
  // Other programs come and go between the two looks.
  EXPECT_NEAR(static_cast<double>(*shared), static_cast<double>(*alone) / 4, 0.2 * static_cast<double>(*alone) / 4);
}

}  // namespace
}  // namespace bearing::worker
