// Tells watchers of a job about its changes, in order.
//
// A subscriber registers first and reads the snapshot afterwards, so no change falls between; it drops what it knows by
// sequence. Thread-safe. Subscribers are called under the feed's lock: they must not block or call the feed back.
#ifndef BEARING_COORDINATOR_JOB_FEED_H_
#define BEARING_COORDINATOR_JOB_FEED_H_

#include <cstddef>
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
    // Called every so often; time for a keepalive?
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
  void Tick(SteadyTime now);
  size_t count();
  // Closes every subscriber and refuses new ones.
  void Close();

 private:
  const size_t max_subscribers_;
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, std::vector<std::shared_ptr<Subscriber>>> subscribers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_FEED_H_
