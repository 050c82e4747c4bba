// What needs a device is skipped without one; the rest shows that machines without one are told so.
#include "worker/comm/cuda_backend.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "sharding/status_macros.h"
#include "tests/worker/communicator_conformance.h"
#include "tests/worker/grid_conformance.h"
#include "tests/worker/need_device.h"
#include "worker/comm/thread_communicator.h"

namespace bearing::comm {
namespace {

using ::testing::HasSubstr;

TEST(LoadCudaTest, NamesTheLibraryThatIsMissing) {
  const absl::Status status = LoadCuda("/no/such/libbearing_cuda.so");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/libbearing_cuda.so"));
}

TEST(LoadCudaTest, RefusesALibraryThatIsNotBearings) {
  const absl::Status status = LoadCuda("libm.so.6");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("libm.so.6: is not Bearing's"));
}

TEST(LoadCudaDeathTest, SaysThatATenWasAskedBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto late = [] {
    (void)at::hasCUDA();
    std::fprintf(stderr, "%s\n", std::string(LoadCuda().message()).c_str());
    std::exit(3);
  };
  EXPECT_EXIT(late(), ::testing::ExitedWithCode(3), "load it first");
}

TEST(LoadCudaTest, GivesATenItsCudaHalf) {
  const absl::Status status = LoadCuda();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(LoadCuda().ok());
  std::string why;
  EXPECT_EQ(at::hasCUDA(), CudaAvailable(&why)) << why;
  EXPECT_TRUE(c10::impl::hasDeviceGuardImpl(at::kCUDA));
  EXPECT_EQ(at::globalContext().allowBF16ReductionCuBLAS(), at::CuBLASReductionOption::DisallowReducedPrecisionAllowSplitK);
}

TEST(CudaAvailableTest, SaysWhyNot) {
  std::string why;
  const bool available = CudaAvailable(&why);
  EXPECT_EQ(available, why.empty()) << why;
}

TEST(MakeCudaCommunicatorTest, EveryRankIsToldThatThereIsNoDevice) {
  std::string why;
  if (CudaAvailable(&why)) GTEST_SKIP() << "there is a CUDA device";
  const absl::Status status = RunThreadRanks(2, [](Communicator& bootstrap) -> absl::Status {
    const absl::Status made = MakeCudaCommunicator(bootstrap, {}).status();
    BEARING_RETURN_IF_ERROR(testing::Check(absl::IsFailedPrecondition(made), "FailedPrecondition on every rank"));
    return bootstrap.rank() == 1 ? made : absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no CUDA device: host="));
}

TEST(MakeCudaCommunicatorTest, ADeviceThatIsNotThereIsNamed) {
  SKIP_WITHOUT_DEVICE();
  SelfCommunicator self;
  const absl::Status status = MakeCudaCommunicator(self, {.device = 99}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("device=99"));
}

TEST(MakeCudaCommunicatorTest, TwoRanksOnOneDeviceAreRefused) {
  SKIP_WITHOUT_DEVICE();
  const absl::Status status =
      RunThreadRanks(2, [](Communicator& bootstrap) { return MakeCudaCommunicator(bootstrap, {.device = 0}).status(); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("two ranks have the same CUDA device"));
}

// NCCL takes one rank a device, so with one device it runs as a group of one.
TEST(NcclTest, ReducesAndSendsTensorsOfTheDevice) {
  SKIP_WITHOUT_DEVICE();
  SelfCommunicator self;
  auto made = MakeCudaCommunicator(self, {.nccl_alone = true});
  ASSERT_TRUE(made.ok()) << made.status();
  Communicator& comm = **made;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
    const at::Tensor before = at::arange(1000, at::dtype(type).device(at::kCUDA)).view({100, 10});
    for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
      at::Tensor tensor = before.clone();
      const absl::Status status = comm.AllReduce(tensor, op);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(at::equal(tensor, before));
    }
    const auto all = comm.AllGather(before);
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_TRUE(at::equal(*all, before));
    at::Tensor sent = before.clone();
    const absl::Status status = comm.Broadcast(sent, 0);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(at::equal(sent, before));
  }
  at::Tensor half = at::zeros({4}, at::dtype(at::kHalf).device(at::kCUDA));
  EXPECT_THAT(std::string(comm.AllReduce(half, ReduceOp::kSum).message()), HasSubstr("Half"));
  at::Tensor slanted = at::zeros({4, 4}, at::device(at::kCUDA)).t();
  EXPECT_THAT(std::string(comm.AllReduce(slanted, ReduceOp::kSum).message()), HasSubstr("contiguous"));
}

TEST(NcclTest, HostTensorsAndSplitsGoThroughTheBootstrap) {
  SKIP_WITHOUT_DEVICE();
  SelfCommunicator self;
  auto made = MakeCudaCommunicator(self, {.nccl_alone = true});
  ASSERT_TRUE(made.ok()) << made.status();
  absl::Status status = testing::ExerciseCommunicator(**made);
  EXPECT_TRUE(status.ok()) << status;
  status = testing::ExerciseLayouts(**made);
  EXPECT_TRUE(status.ok()) << status;
  auto grid = MakeGrid(**made, 1);
  ASSERT_TRUE(grid.ok()) << grid.status();
  at::Tensor tensor = at::ones({8}, at::device(at::kCUDA));
  status = grid->tensor_parallel->AllReduce(tensor, ReduceOp::kSum);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(tensor.eq(1).all().item<bool>());
}

TEST(CurrentCudaDeviceTest, SaysWhatThereIs) {
  SKIP_WITHOUT_DEVICE();
  SelfCommunicator self;
  ASSERT_TRUE(MakeCudaCommunicator(self, {}).ok());
  const auto device = CurrentCudaDevice();
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_FALSE(device->name.empty());
  EXPECT_GT(device->free_bytes, 0);
  EXPECT_LE(device->free_bytes, device->total_bytes);
}

}  // namespace
}  // namespace bearing::comm
