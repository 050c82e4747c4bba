#include "worker/edit/thread_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"

namespace bearing::edit {
namespace {

using testing::HasSubstr;

TEST(ThreadGroupTest, EveryRankRunsOnce) {
  for (const int ranks : {1, 2, 5}) {
    std::atomic<int> sum = 0;
    const absl::Status done = RunThreadGroup(ranks, [&](const RankGroup& group) {
      EXPECT_EQ(group.ranks, ranks);
      sum += 1 << group.rank;
      return group.agree(absl::OkStatus());
    });
    EXPECT_TRUE(done.ok()) << done;
    EXPECT_EQ(sum, (1 << ranks) - 1);
  }
}

TEST(ThreadGroupTest, AllGetTheFailureOfTheLowestRankInEveryRound) {
  constexpr int kRanks = 4;
  std::atomic<int> wrong = 0;
  const absl::Status done = RunThreadGroup(kRanks, [&](const RankGroup& group) {
    for (int round = 0; round < 2000; ++round) {
      // In round r the ranks from r % 5 on fail; in every fifth none.
      const int first = round % (kRanks + 1);
      const absl::Status mine =
          group.rank >= first ? absl::DataLossError(absl::StrCat(round, "/", group.rank)) : absl::OkStatus();
      const absl::Status agreed = group.agree(mine);
      const absl::Status want = first < kRanks ? absl::DataLossError(absl::StrCat(round, "/", first)) : absl::OkStatus();
      if (agreed != want) ++wrong;
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(done.ok()) << done;
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadGroupTest, NobodyWaitsForARankThatIsGone) {
  const absl::Status failed = RunThreadGroup(3, [](const RankGroup& group) -> absl::Status {
    if (group.rank == 1) return absl::NotFoundError("no such file");
    return group.agree(absl::OkStatus());
  });
  EXPECT_EQ(failed, absl::NotFoundError("no such file"));

  const absl::Status thrown = RunThreadGroup(2, [](const RankGroup& group) -> absl::Status {
    if (group.rank == 1) throw std::runtime_error("what it says");
    return group.agree(absl::OkStatus());
  });
  EXPECT_EQ(thrown.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(thrown.message(), HasSubstr("what it says"));

  const absl::Status quiet = RunThreadGroup(2, [](const RankGroup& group) -> absl::Status {
    return group.rank == 1 ? absl::OkStatus() : group.agree(absl::OkStatus());
  });
  EXPECT_EQ(quiet.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(quiet.message(), HasSubstr("left"));
}

TEST(ThreadGroupTest, WorkOfDifferentLengthEndsTogether) {
  std::atomic<int> finished = 0;
  const absl::Status done = RunThreadGroup(3, [&](const RankGroup& group) {
    return WorkTogether(group, [&](const std::atomic<bool>&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20 * group.rank));
      ++finished;
      return absl::OkStatus();
    });
  });
  EXPECT_TRUE(done.ok()) << done;
  EXPECT_EQ(finished, 3);
}

}  // namespace
}  // namespace bearing::edit
