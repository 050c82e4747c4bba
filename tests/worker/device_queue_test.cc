#include "worker/comm/device_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace bearing::comm {
namespace {

// A device that is done with what the test says it is done with.
class FakeDevice final : public DeviceMarks {
 public:
  Mark Create() override {
    std::lock_guard lock(mutex_);
    return reinterpret_cast<Mark>(static_cast<intptr_t>(++created_));
  }
  void Destroy(Mark) override {
    std::lock_guard lock(mutex_);
    ++destroyed_;
  }
  void Record(Mark mark) override {
    std::lock_guard lock(mutex_);
    order_[mark] = ++recorded_;
  }
  State Query(Mark mark) override {
    std::lock_guard lock(mutex_);
    return broken_ ? State::kFailed : order_.at(mark) <= done_ ? State::kDone : State::kPending;
  }
  std::string Failure() override {
    std::lock_guard lock(mutex_);
    return failure_;
  }
  void AbortOperations() override {
    std::lock_guard lock(mutex_);
    aborted_ = true;
  }

  void FinishUpTo(int operation) {
    std::lock_guard lock(mutex_);
    done_ = operation;
  }
  void Break() {
    std::lock_guard lock(mutex_);
    broken_ = true;
  }
  void Fail(const std::string& failure) {
    std::lock_guard lock(mutex_);
    failure_ = failure;
  }
  int created() const { return created_; }
  int destroyed() const { return destroyed_; }
  bool aborted() const { return aborted_; }

 private:
  std::mutex mutex_;
  std::map<Mark, int> order_;
  int created_ = 0;
  int destroyed_ = 0;
  int recorded_ = 0;
  int done_ = 0;
  bool broken_ = false;
  bool aborted_ = false;
  std::string failure_;
};

class DeviceQueueTest : public ::testing::Test {
 protected:
  std::function<void(const std::string&)> Record() {
    return [this](const std::string& what) {
      aborted_before_ = device_.aborted();
      message_ = what;
      failed_.Notify();
    };
  }
  std::string Message() { return failed_.WaitForNotificationWithTimeout(absl::Seconds(30)) ? message_ : "nothing"; }

  FakeDevice device_;
  absl::Notification failed_;
  std::string message_;
  bool aborted_before_ = false;
};

TEST_F(DeviceQueueTest, NamesTheOldestOperationThatHangs) {
  DeviceQueue queue(device_, absl::Milliseconds(300), Record());
  for (const char* what : {"first", "second", "third"}) queue.Push(what);
  device_.FinishUpTo(1);
  EXPECT_EQ(Message(), "second did not finish within 300ms");
  EXPECT_TRUE(aborted_before_);
}

TEST_F(DeviceQueueTest, IsSilentWhileTheDeviceGetsOn) {
  {
    DeviceQueue queue(device_, absl::Milliseconds(400), Record());
    for (int i = 1; i <= 8; ++i) queue.Push("operation");
    for (int i = 1; i <= 8; ++i) {  // In all longer than the limit, but each one shorter.
      absl::SleepFor(absl::Milliseconds(100));
      device_.FinishUpTo(i);
    }
    absl::SleepFor(absl::Milliseconds(600));
  }
  EXPECT_FALSE(failed_.HasBeenNotified()) << message_;
}

TEST_F(DeviceQueueTest, ReportsAFailureOfTheGroup) {
  DeviceQueue queue(device_, absl::ZeroDuration(), Record());
  queue.Push("operation=AllReduce");
  device_.Fail("NCCL: remote process exited");
  EXPECT_EQ(Message(), "operation=AllReduce NCCL: remote process exited");
}

TEST_F(DeviceQueueTest, ReportsAFailureOfTheDevice) {
  DeviceQueue queue(device_, absl::ZeroDuration(), Record());
  queue.Push("operation=AllReduce");
  device_.Break();
  EXPECT_EQ(Message(), "operation=AllReduce the device failed");
}

TEST_F(DeviceQueueTest, UsesMarksAgainAndLeavesNone) {
  {
    DeviceQueue queue(device_, absl::Minutes(1), Record());
    for (int i = 1; i <= 20000; ++i) {
      queue.Push("operation");
      device_.FinishUpTo(i);
    }
  }
  EXPECT_LE(device_.created(), 1025);
  EXPECT_EQ(device_.destroyed(), device_.created());
}

}  // namespace
}  // namespace bearing::comm
