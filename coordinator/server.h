// The whole coordinator in one object: store, scheduler, both services, health, reflection and the thread that watches the
// time.
//
// Plaintext is served as asked; whether an address may be is decided in listen_address.h.
#ifndef BEARING_COORDINATOR_SERVER_H_
#define BEARING_COORDINATOR_SERVER_H_

#include <grpcpp/server.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/jobs_service.h"
#include "coordinator/scheduler.h"
#include "coordinator/worker_service.h"

namespace bearing::coordinator {

struct ServerOptions {
  std::string listen = "127.0.0.1:7070";
  std::string store_path;
  SchedulerOptions scheduler;
  JobsServiceOptions jobs;
  size_t max_watches = 1000;
  int max_waiting_groups = 256;
  // Calls still open this long after Stop are cut off.
  std::chrono::milliseconds drain_time{1000};
};

class Server {
 public:
  // Serving when it returns. Unavailable when the address or the store is taken. Checker, clock and logger must outlive it.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, const JobChecker* checker,
                                                       const Clock* clock, RandomSource random, spdlog::logger* logger);
  ~Server();

  int port() const { return port_; }

  // Says NOT_SERVING, ends watches and long polls, waits for the other calls a moment. Idempotent; not thread-safe.
  void Stop();

 private:
  Server(const ServerOptions& options, const Clock* clock);
  absl::Status Listen(const JobChecker* checker);
  void KeepTime();

  const ServerOptions options_;
  const Clock* const clock_;
  JobFeed feed_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<JobsService> jobs_service_;
  std::unique_ptr<WorkerService> worker_service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread timekeeper_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SERVER_H_
