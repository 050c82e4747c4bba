#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/watch_reactor.h"

namespace bearing::coordinator {
namespace {

std::shared_ptr<const StoredJob> Change(int64_t sequence, bearing::v1::JobState state, int attempt = 1) {
  auto stored = std::make_shared<StoredJob>();
  stored->sequence = sequence;
  stored->job.set_state(state);
  stored->job.set_attempt(attempt);
  return stored;
}

std::vector<int64_t> Drain(WatchQueue* queue) {
  std::vector<int64_t> sequences;
  while (auto next = queue->Pop()) sequences.push_back(next->sequence);
  return sequences;
}

TEST(WatchQueueTest, ProgressIsThinnedOutAndStatesStay) {
  WatchQueue queue;
  queue.Push(Change(1, bearing::v1::JOB_STATE_QUEUED, 0));
  for (int i = 2; i < 1000; ++i) queue.Push(Change(i, bearing::v1::JOB_STATE_RUNNING));
  queue.Push(Change(1000, bearing::v1::JOB_STATE_QUEUED));
  queue.Push(Change(1001, bearing::v1::JOB_STATE_RUNNING, 2));
  queue.Push(Change(1002, bearing::v1::JOB_STATE_SUCCEEDED, 2));
  EXPECT_THAT(Drain(&queue), testing::ElementsAre(1, 999, 1000, 1001, 1002));
}

TEST(WatchQueueTest, DropsWhatIsOld) {
  WatchQueue queue;
  queue.Push(Change(5, bearing::v1::JOB_STATE_RUNNING));
  queue.Push(Change(4, bearing::v1::JOB_STATE_QUEUED, 0));
  queue.Push(Change(5, bearing::v1::JOB_STATE_RUNNING));
  EXPECT_THAT(Drain(&queue), testing::ElementsAre(5));
  queue.SkipUpTo(7);
  queue.Push(Change(7, bearing::v1::JOB_STATE_FAILED));
  EXPECT_TRUE(queue.empty());
  queue.Push(Change(8, bearing::v1::JOB_STATE_FAILED));
  queue.SkipUpTo(8);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace bearing::coordinator
