#include "worker/comm/store_communicator.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "absl/time/clock.h"
#include "tests/worker/communicator_conformance.h"
#include "tests/worker/grid_conformance.h"
#include "worker/comm/thread_communicator.h"

namespace bearing::comm {
namespace {

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

// Ranks with a connection each, here as threads of one process.
absl::Status RunStoreRanks(int size, const std::function<absl::Status(Communicator&)>& body) {
  const int port = FreePort();
  return RunThreadRanks(size, [&](Communicator& thread) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(
        std::unique_ptr<Communicator> comm,
        MakeStoreCommunicator(
            {.host = "127.0.0.1", .port = port, .rank = thread.rank(), .size = thread.size(), .timeout = absl::Minutes(1)}));
    return body(*comm);
  });
}

class StoreCommunicatorTest : public ::testing::TestWithParam<int> {};

TEST_P(StoreCommunicatorTest, Conforms) {
  const absl::Status status = RunStoreRanks(GetParam(), [](Communicator& comm) -> absl::Status {
    BEARING_RETURN_IF_ERROR(testing::ExerciseCommunicator(comm));
    BEARING_RETURN_IF_ERROR(testing::ExerciseBits(comm));
    return testing::ExerciseLayouts(comm);
  });
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Sizes, StoreCommunicatorTest, ::testing::Values(1, 2, 4));

TEST(StoreCommunicatorTest, CarriesMoreThanTheStoreTakesAtOnce) {
  const absl::Status status = RunStoreRanks(2, [](Communicator& comm) -> absl::Status {
    for (const size_t size : {size_t{4} << 20, (size_t{9} << 20) + 1}) {
      std::string bytes = comm.rank() == 1 ? std::string(size, 'x') + "end" : "";
      BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(bytes, 1));
      BEARING_RETURN_IF_ERROR(testing::Check(bytes == std::string(size, 'x') + "end", "long BroadcastBytes"));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(MakeStoreCommunicatorTest, SaysThatTheOthersDidNotCome) {
  const auto comm =
      MakeStoreCommunicator({.host = "127.0.0.1", .port = FreePort(), .rank = 0, .size = 2, .timeout = absl::Seconds(1)});
  EXPECT_EQ(comm.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(comm.status().message()), ::testing::HasSubstr("rank=0 size=2"));
}

TEST(StoreCommunicatorDeathTest, ARankThatHangsEndsTheProcessWithAMessage) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [] {
    const int port = FreePort();
    (void)RunThreadRanks(2, [&](Communicator& thread) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(
          std::unique_ptr<Communicator> comm,
          MakeStoreCommunicator(
              {.host = "127.0.0.1", .port = port, .rank = thread.rank(), .size = 2, .timeout = absl::Seconds(1)}));
      comm->SetStage("collect");
      if (comm->rank() == 1) absl::SleepFor(absl::Seconds(60));
      return comm->Barrier();
    });
  };
  EXPECT_EXIT(hang(), ::testing::ExitedWithCode(kExitTimedOut),
              "rank=0 stage=collect operation=Barrier bytes=0 did not finish within 1s");
}

TEST(StoreCommunicatorTest, GroupsShareAStoreThatIsServedElsewhere) {
  c10d::TCPStoreOptions served;
  served.port = 0;
  served.isServer = true;
  served.waitWorkers = false;
  const auto store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", served);
  for (const char* prefix : {"first/", "second/"}) {  // One after the other: nothing of the first must be in the second's way.
    const absl::Status status = RunThreadRanks(2, [&](Communicator& thread) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> comm, MakeStoreCommunicator({.host = "127.0.0.1",
                                                                                          .port = store->getPort(),
                                                                                          .rank = thread.rank(),
                                                                                          .size = 2,
                                                                                          .timeout = absl::Minutes(1),
                                                                                          .served_elsewhere = true,
                                                                                          .prefix = prefix}));
      return testing::ExerciseCommunicator(*comm);
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

}  // namespace
}  // namespace bearing::comm
