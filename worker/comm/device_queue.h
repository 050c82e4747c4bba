// Watches operations that a device works through in order. The host does not wait for them, so the Watchdog cannot see them.
#ifndef BEARING_WORKER_COMM_DEVICE_QUEUE_H_
#define BEARING_WORKER_COMM_DEVICE_QUEUE_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace bearing::comm {

// What the queue asks of a device: marks in its stream of work.
class DeviceMarks {
 public:
  using Mark = void*;
  enum class State { kPending, kDone, kFailed };

  virtual ~DeviceMarks() = default;
  virtual Mark Create() = 0;
  virtual void Destroy(Mark mark) = 0;
  virtual void Record(Mark mark) = 0;  // Behind everything put on the current stream so far. Called by the rank's thread.
  virtual State Query(Mark mark) = 0;  // Called by any thread.
  virtual std::string Failure() = 0;   // What broke communication in the background, or nothing. Called by the queue's thread.
  virtual void AbortOperations() = 0;  // Ends what hangs on the device. Called by the queue's thread, once.
};

// Push belongs to the rank's thread. Time is the monotonic clock's.
class DeviceQueue {
 public:
  // `failed` is called at most once, on the queue's thread, with the oldest unfinished operation and what is wrong with it,
  // after its operations were aborted. It is expected to end the process. A limit of zero looks for failures only. `marks`
  // outlives the queue.
  DeviceQueue(DeviceMarks& marks, absl::Duration limit, std::function<void(const std::string&)> failed);
  ~DeviceQueue();
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  // An operation was just put on the stream. `what` names it (operation.h).
  void Push(std::string what);

 private:
  struct Entry {
    DeviceMarks::Mark mark;
    std::string what;
  };

  void Run();
  void Reap();  // Removes what is done. Holds mutex_.

  DeviceMarks& marks_;
  const absl::Duration limit_;
  const std::function<void(const std::string&)> failed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::deque<Entry> entries_;
  std::vector<DeviceMarks::Mark> spare_;
  std::chrono::steady_clock::time_point head_since_;  // When the first entry became the first.
  std::thread thread_;
};

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_DEVICE_QUEUE_H_
