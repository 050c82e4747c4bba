// The whole coordinator in one object: store, scheduler, both services, health, reflection, metrics and the thread that watches
// the time.
//
// Plaintext is served as asked; whether an address may be is decided in program_options.h. Reflection is there only where no
// tokens are asked for.
#ifndef BEARING_COORDINATOR_SERVER_H_
#define BEARING_COORDINATOR_SERVER_H_

#include <grpcpp/server.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/audit_log.h"
#include "coordinator/authenticator.h"
#include "coordinator/call_guard.h"
#include "coordinator/certificate_files.h"
#include "coordinator/failpoint.h"
#include "coordinator/http_endpoint.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/jobs_service.h"
#include "coordinator/metrics.h"
#include "coordinator/scheduler.h"
#include "coordinator/worker_service.h"

namespace bearing::coordinator {

struct ServerOptions {
  std::string listen = "127.0.0.1:7070";
  // The workers' own address; empty = they are served on `listen`.
  std::string worker_listen;
  // gRPC health checks in plaintext, for probes; empty = only on the other ports.
  std::string health_listen;
  // HTTP: metrics and probes; empty = none.
  std::string metrics_listen;
  TlsOptions tls;
  std::string token_file;  // Empty = no tokens are asked for.
  std::string audit_file;  // Empty = no audit log.
  Failpoint failpoint;
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
  // -1 where there is no such port.
  int worker_port() const { return worker_port_; }
  int health_port() const { return health_port_; }
  int metrics_port() const { return http_ == nullptr ? -1 : http_->port(); }

  // Says NOT_SERVING, ends watches and long polls, waits for the other calls a moment. Idempotent; not thread-safe.
  void Stop();

 private:
  Server(const ServerOptions& options, const Clock* clock);
  absl::Status Listen(const JobChecker* checker, spdlog::logger* logger);
  absl::Status ListenHttp();
  // One more port; fills in its number.
  absl::Status AddPort(const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials,
                       const std::vector<grpc::Service*>& services, int* port);
  std::string MetricsPage();
  bool ready();
  void KeepTime();

  const ServerOptions options_;
  const Clock* const clock_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<CallGuard> guard_;
  JobFeed feed_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<JobsService> jobs_service_;
  std::unique_ptr<WorkerService> worker_service_;
  std::unique_ptr<CertificateFiles> certificates_;  // Null in plaintext.
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::vector<std::unique_ptr<grpc::Server>> servers_;
  std::unique_ptr<HttpEndpoint> http_;
  int port_ = 0;
  int worker_port_ = -1;
  int health_port_ = -1;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread timekeeper_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SERVER_H_
