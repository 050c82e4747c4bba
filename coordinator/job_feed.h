// Tells watchers of a job about its changes, in order.
//
// A change of state or attempt is told at once. Of progress, a watcher of a job hears once between two ticks at once and the
// newest at each tick: what a thousand watchers cost does not grow with how often a group reports.
//
// A subscriber registers first and reads the snapshot afterwards, so no change falls between; it drops what it knows by
// sequence. Thread-safe. Subscribers are called under the feed's lock: they must not block or call the feed back.
#ifndef BEARING_COORDINATOR_JOB_FEED_H_
#define BEARING_COORDINATOR_JOB_FEED_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/clock.h"
#include "coordinator/job_store.h"

namespace bearing::coordinator {

class JobFeed {
 public:
  class Subscriber {
   public:
    virtual ~Subscriber() = default;
    virtual void Offer(std::shared_ptr<const StoredJob> job) = 0;
    // New lines of the job's log.
    virtual void OfferLogs(std::shared_ptr<const LogLines> lines) {}
    // Every so often, see JobFeed::Tick; time for a keepalive?
    virtual void Tick(SteadyTime now) = 0;
    // The server drains: end the stream.
    virtual void Close() = 0;
  };

  explicit JobFeed(size_t max_subscribers) : max_subscribers_(max_subscribers) {}

  // ResourceExhausted over the cap, Unavailable after Close.
  absl::Status Subscribe(const std::string& job_name, std::shared_ptr<Subscriber> subscriber);
  void Unsubscribe(const std::string& job_name, const Subscriber* subscriber);

  void Publish(const StoredJob& job);
  void PublishLogs(const std::string& job_name, LogLines lines);
  // To be called every so often: tells the progress that waits.
  void Tick(SteadyTime now);
  size_t count();
  // Closes every subscriber and refuses new ones.
  void Close();

 private:
  // A job that somebody watches.
  struct Watched {
    std::vector<std::shared_ptr<Subscriber>> subscribers;
    bearing::v1::JobState state = bearing::v1::JOB_STATE_UNSPECIFIED;  // Of the last change, told or not.
    int32_t attempt = -1;
    bool told = false;                         // Progress, since the last tick.
    std::shared_ptr<const StoredJob> waiting;  // Progress that is not told yet.
  };

  static void Tell(const Watched& watched, const std::shared_ptr<const StoredJob>& job);

  const size_t max_subscribers_;
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, Watched> watched_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_FEED_H_
