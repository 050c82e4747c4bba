// Reads WatchJob on a thread of its own and hands the changes over, so that the caller's loop can look at signals and child
// processes too. A broken stream is opened again after the last sequence number, for up to half a minute without news.
#ifndef BEARING_CLI_JOB_WATCHER_H_
#define BEARING_CLI_JOB_WATCHER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bearing/v1/job.pb.h"
#include "cli/jobs_client.h"

namespace bearing::cli {

class JobWatcher {
 public:
  // `client` must outlive the watcher.
  JobWatcher(JobsClient& client, std::string name);
  ~JobWatcher();
  JobWatcher(const JobWatcher&) = delete;
  JobWatcher& operator=(const JobWatcher&) = delete;

  struct News {
    std::vector<bearing::v1::Job> jobs;  // Oldest first.
    bool over = false;                   // No more will come: the job ended, or `status` says why not.
    absl::Status status;
  };
  // Waits up to `timeout` for news.
  News Wait(absl::Duration timeout);

 private:
  void Run();
  // One stream, until it ends.
  absl::Status ReadStream();

  JobsClient& client_;
  const std::string name_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bearing::v1::Job> jobs_;
  bool over_ = false;
  bool stopping_ = false;
  absl::Status status_;
  std::unique_ptr<grpc::ClientContext> context_;
  // Of the reading thread alone.
  int64_t sequence_ = 0;
  bool ended_ = false;
  bearing::v1::JobSpec spec_;
  bearing::v1::ShardPlan plan_;
  absl::Time last_message_;
  std::thread thread_;
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOB_WATCHER_H_
