#include "coordinator/job_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace bearing::coordinator {
namespace {

using bearing::v1::JOB_STATE_QUEUED;
using bearing::v1::JOB_STATE_RUNNING;
using bearing::v1::JOB_STATE_SUCCEEDED;
using ::testing::ElementsAre;

class Listener final : public JobFeed::Subscriber {
 public:
  void Offer(std::shared_ptr<const StoredJob> job) override { heard.push_back(job->sequence); }
  void Tick(SteadyTime) override { ++ticks; }
  void Close() override { closed = true; }

  std::vector<int64_t> heard;
  int ticks = 0;
  bool closed = false;
};

StoredJob Change(int64_t sequence, bearing::v1::JobState state, int attempt = 1) {
  StoredJob stored;
  stored.sequence = sequence;
  stored.job.set_name("a");
  stored.job.set_state(state);
  stored.job.set_attempt(attempt);
  return stored;
}

class JobFeedTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(feed_.Subscribe("a", listener_).ok()); }

  JobFeed feed_{2};
  std::shared_ptr<Listener> listener_ = std::make_shared<Listener>();
};

TEST_F(JobFeedTest, ProgressIsToldOnceBetweenTicksAndTheNewestAtEach) {
  feed_.Publish(Change(1, JOB_STATE_RUNNING));
  for (int i = 2; i < 100; ++i) feed_.Publish(Change(i, JOB_STATE_RUNNING));
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2));
  feed_.Tick(SteadyTime());
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2, 99));
  feed_.Publish(Change(100, JOB_STATE_RUNNING));  // The tick told one already.
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2, 99));
  feed_.Tick(SteadyTime());
  feed_.Tick(SteadyTime());
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2, 99, 100));
  feed_.Publish(Change(101, JOB_STATE_RUNNING));
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2, 99, 100, 101));
  EXPECT_EQ(listener_->ticks, 3);
}

TEST_F(JobFeedTest, StatesAndAttemptsAreToldAtOnceBehindTheProgressBeforeThem) {
  feed_.Publish(Change(1, JOB_STATE_QUEUED, 0));
  feed_.Publish(Change(2, JOB_STATE_RUNNING));
  for (int i = 3; i < 6; ++i) feed_.Publish(Change(i, JOB_STATE_RUNNING));
  feed_.Publish(Change(6, JOB_STATE_QUEUED));
  feed_.Publish(Change(7, JOB_STATE_RUNNING, 2));
  feed_.Publish(Change(8, JOB_STATE_SUCCEEDED, 2));
  EXPECT_THAT(listener_->heard, ElementsAre(1, 2, 3, 5, 6, 7, 8));
  feed_.Tick(SteadyTime());
  EXPECT_EQ(listener_->heard.back(), 8);
}

TEST_F(JobFeedTest, CountsItsSubscribersAndClosesThem) {
  ASSERT_TRUE(feed_.Subscribe("b", listener_).ok());
  EXPECT_EQ(feed_.Subscribe("b", listener_).code(), absl::StatusCode::kResourceExhausted);
  feed_.Unsubscribe("b", listener_.get());
  EXPECT_EQ(feed_.count(), 1u);
  feed_.Publish(Change(1, JOB_STATE_RUNNING));
  feed_.Unsubscribe("a", listener_.get());
  feed_.Publish(Change(2, JOB_STATE_SUCCEEDED));
  EXPECT_THAT(listener_->heard, ElementsAre(1));
  ASSERT_TRUE(feed_.Subscribe("a", listener_).ok());
  feed_.Close();
  EXPECT_TRUE(listener_->closed);
  EXPECT_EQ(feed_.Subscribe("a", listener_).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace bearing::coordinator
