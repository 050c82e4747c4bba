#include "coordinator/server.h"

#include <google/protobuf/message.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/listen_address.h"
#include "coordinator/server_tls.h"
#include "grpc/health/v1/health.pb.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

constexpr int kLargestMessage = 16 << 20;
constexpr int kHourInMs = 60 * 60 * 1000;
// Waiting groups hold a thread each; the rest is for calls that come and go.
constexpr int kThreadsForCalls = 128;
constexpr std::chrono::milliseconds kTimekeeping{250};
// Of the timekeeper, between two looks for jobs that need not be kept.
constexpr int kRoundsBetweenSweeps = 40;
constexpr int kRoundsBetweenLooks = 4;  // At the files of certificates.

void SetLimits(grpc::ServerBuilder* builder, int max_waiting_groups) {
  builder->SetMaxReceiveMessageSize(kLargestMessage);
  builder->SetMaxSendMessageSize(kLargestMessage);
  // Clients ping every 30 s, without calls too; gRPC's own limit of one ping in 5 minutes would cut them off.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Connections are renewed, so that balancers in front can spread them.
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kHourInMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kHourInMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 1000);
  // Two coordinators on one port would each get a share of the calls.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota("coordinator");
  quota.SetMaxThreads(max_waiting_groups + kThreadsForCalls);
  builder->SetResourceQuota(quota);
}

}  // namespace

Server::Server(const ServerOptions& options, const Clock* clock)
    : options_(options), clock_(clock), feed_(options.max_watches) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, const JobChecker* checker,
                                                      const Clock* clock, RandomSource random, spdlog::logger* logger) {
  std::unique_ptr<Server> server(new Server(options, clock));
  server->metrics_ = Metrics::Create(options.jobs.version);
  BEARING_ASSIGN_OR_RETURN(server->authenticator_, Authenticator::Open(options.token_file, clock, logger));
  BEARING_ASSIGN_OR_RETURN(server->audit_, AuditLog::Open(options.audit_file, clock, logger));
  server->guard_ =
      std::make_unique<CallGuard>(server->authenticator_.get(), server->audit_.get(), server->metrics_.get(), clock);
  BEARING_ASSIGN_OR_RETURN(server->store_, JobStore::Open(options.store_path, options.failpoint));
  SchedulerParts parts{server->store_.get(),   &server->feed_,    checker, clock, std::move(random), logger,
                       server->metrics_.get(), options.jobs.paths};
  BEARING_ASSIGN_OR_RETURN(server->scheduler_, Scheduler::Create(options.scheduler, std::move(parts)));
  BEARING_RETURN_IF_ERROR(server->Listen(checker, logger));
  BEARING_RETURN_IF_ERROR(server->ListenHttp());
  server->timekeeper_ = std::thread([raw = server.get()] { raw->KeepTime(); });
  return server;
}

absl::Status Server::AddPort(const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials,
                             const std::vector<grpc::Service*>& services, int* port) {
  grpc::ServerBuilder builder;
  SetLimits(&builder, options_.max_waiting_groups);
  *port = 0;
  builder.AddListeningPort(address, credentials, port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || *port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen (is the port taken?): address=", address));
  }
  for (const char* name : {"", "liveness", "readiness"}) server->GetHealthCheckService()->SetServingStatus(name, true);
  servers_.push_back(std::move(server));
  return absl::OkStatus();
}

absl::Status Server::Listen(const JobChecker* checker, spdlog::logger* logger) {
  jobs_service_ = std::make_unique<JobsService>(
      options_.jobs, JobsServiceParts{scheduler_.get(), store_.get(), &feed_, checker, clock_, guard_.get()});
  worker_service_ = std::make_unique<WorkerService>(scheduler_.get(), clock_, guard_.get(), options_.max_waiting_groups);
  // Pulls in the descriptors of the health protocol, which gRPC itself serves without: reflection can then name it.
  google::protobuf::LinkMessageReflection<grpc::health::v1::HealthCheckRequest>();
  grpc::EnableDefaultHealthCheckService(true);
  if (!authenticator_->asks_for_tokens()) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  if (options_.tls.enabled()) {
    BEARING_ASSIGN_OR_RETURN(certificates_, CertificateFiles::Open(options_.tls, logger));
  }
  credentials_ = MakeServerCredentials(certificates_.get());
  std::vector<grpc::Service*> services = {jobs_service_.get()};
  if (options_.worker_listen.empty()) services.push_back(worker_service_.get());
  BEARING_RETURN_IF_ERROR(AddPort(options_.listen, credentials_, services, &port_));
  if (!options_.worker_listen.empty()) {
    BEARING_RETURN_IF_ERROR(AddPort(options_.worker_listen, credentials_, {worker_service_.get()}, &worker_port_));
  }
  if (options_.health_listen.empty()) return absl::OkStatus();
  return AddPort(options_.health_listen, grpc::InsecureServerCredentials(), {}, &health_port_);
}

absl::Status Server::ListenHttp() {
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(options_.metrics_listen));
  BEARING_ASSIGN_OR_RETURN(http_, HttpEndpoint::Start(
                                      address, [this] { return MetricsPage(); }, [this] { return ready(); }));
  return absl::OkStatus();
}

std::string Server::MetricsPage() {
  Metrics::Gauges gauges;
  if (auto counts = store_->CountByState(); counts.ok()) gauges.jobs = *std::move(counts);
  if (auto since = store_->OldestQueuedSince(); since.ok() && *since > 0) {
    gauges.oldest_queued_seconds =
        std::max(0.0, static_cast<double>(absl::ToUnixMillis(absl::FromChrono(clock_->WallNow())) - *since) / 1000);
  }
  gauges.leases = scheduler_->NumLeases();
  gauges.watches = static_cast<int64_t>(feed_.count());
  for (const char* part : {"", "-wal"}) {
    std::error_code error;
    const auto size = std::filesystem::file_size(options_.store_path + part, error);
    if (!error) gauges.store_bytes += static_cast<int64_t>(size);
  }
  metrics_->Set(gauges);
  return metrics_->Page();
}

bool Server::ready() {
  absl::MutexLock lock(&mutex_);
  return !stopping_;
}

Server::~Server() { Stop(); }

void Server::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  for (const auto& server : servers_) {
    for (const char* name : {"", "readiness"}) server->GetHealthCheckService()->SetServingStatus(name, false);
  }
  if (scheduler_ != nullptr) scheduler_->Close();
  feed_.Close();
  const auto deadline = std::chrono::system_clock::now() + options_.drain_time;
  for (const auto& server : servers_) server->Shutdown(deadline);
  for (const auto& server : servers_) server->Wait();
  if (http_ != nullptr) http_->Stop();
  if (timekeeper_.joinable()) timekeeper_.join();
}

void Server::KeepTime() {
  const auto lease_ms = std::chrono::duration_cast<std::chrono::milliseconds>(options_.scheduler.lease_time);
  const auto pause =
      std::max(std::chrono::milliseconds(10), std::min({kTimekeeping, lease_ms / 4, options_.jobs.watch_keepalive / 4}));
  int rounds = 0;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(pause))) return;
    }
    scheduler_->ExpireLeases();
    if (++rounds % kRoundsBetweenSweeps == 0) scheduler_->RemoveOutdated();
    if (certificates_ != nullptr && rounds % kRoundsBetweenLooks == 0) certificates_->Refresh();
    feed_.Tick(clock_->SteadyNow());
  }
}

}  // namespace bearing::coordinator
