// Notices a blocking operation that overstays its time limit.
#ifndef BEARING_WORKER_COMM_WATCHDOG_H_
#define BEARING_WORKER_COMM_WATCHDOG_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "worker/comm/operation.h"

namespace bearing::comm {

// One for all communicators of a rank, which never have two operations at once. Time is the monotonic clock's: setting the
// machine's time changes nothing. Begin, End and SetStage belong to one thread; they cost some tens of nanoseconds.
class Watchdog {
 public:
  // `expired` is called at most once, on the watchdog's thread, with "rank=... operation=... did not finish within 10m". It is
  // expected to end the process. A limit of zero watches nothing and starts no thread.
  Watchdog(int rank, absl::Duration limit, std::function<void(const std::string&)> expired);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void SetStage(const std::string& stage);
  void Begin(const Operation& operation);
  void End();

  // "rank=1 stage=collect".
  std::string Place() const;

  // `operation` in words, with rank and stage.
  std::string Describe(const Operation& operation) const;

 private:
  void Run();

  const int rank_;
  const absl::Duration limit_;
  const std::function<void(const std::string&)> expired_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string stage_;
  Operation operation_;  // name == nullptr: none.
  std::chrono::steady_clock::time_point deadline_;
  std::thread thread_;
};

// Begin and End around a scope.
class Watched {
 public:
  Watched(Watchdog& dog, const Operation& operation) : dog_(dog) { dog_.Begin(operation); }
  ~Watched() { dog_.End(); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  Watchdog& dog_;
};

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_WATCHDOG_H_
