#include "worker/comm/device_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace bearing::comm {
namespace {

// How long after its limit, or after a failure, an operation may go unnoticed.
constexpr std::chrono::milliseconds kQueueLook{100};
// So many unfinished operations that the rank's thread removes what is done itself: marks are not made without end.
constexpr size_t kMany = 1024;

}  // namespace

DeviceQueue::DeviceQueue(DeviceMarks& marks, absl::Duration limit, std::function<void(const std::string&)> failed)
    : marks_(marks), limit_(limit), failed_(std::move(failed)), thread_([this] { Run(); }) {}

DeviceQueue::~DeviceQueue() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (const Entry& entry : entries_) marks_.Destroy(entry.mark);
  for (DeviceMarks::Mark mark : spare_) marks_.Destroy(mark);
}

void DeviceQueue::Push(std::string what) {
  std::lock_guard lock(mutex_);
  if (entries_.size() >= kMany) Reap();
  DeviceMarks::Mark mark;
  if (spare_.empty()) {
    mark = marks_.Create();
  } else {
    mark = spare_.back();
    spare_.pop_back();
  }
  marks_.Record(mark);
  if (entries_.empty()) head_since_ = std::chrono::steady_clock::now();
  entries_.push_back({mark, std::move(what)});
}

void DeviceQueue::Reap() {
  while (!entries_.empty() && marks_.Query(entries_.front().mark) == DeviceMarks::State::kDone) {
    spare_.push_back(entries_.front().mark);
    entries_.pop_front();
    head_since_ = std::chrono::steady_clock::now();
  }
}

void DeviceQueue::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, kQueueLook);
    Reap();
    std::string trouble = marks_.Failure();
    if (trouble.empty() && !entries_.empty()) {
      if (marks_.Query(entries_.front().mark) == DeviceMarks::State::kFailed) {
        trouble = "the device failed";
      } else if (limit_ > absl::ZeroDuration() &&
                 std::chrono::steady_clock::now() - head_since_ > absl::ToChronoNanoseconds(limit_)) {
        trouble = absl::StrCat("did not finish within ", absl::FormatDuration(limit_));
      }
    }
    if (trouble.empty()) continue;
    const std::string what = entries_.empty() ? "no operation" : entries_.front().what;
    lock.unlock();
    marks_.AbortOperations();
    failed_(absl::StrCat(what, " ", trouble));
    return;
  }
}

}  // namespace bearing::comm
