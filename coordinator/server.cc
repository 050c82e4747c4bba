#include "coordinator/server.h"

#include <google/protobuf/message.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/health/v1/health.pb.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

constexpr int kLargestMessage = 16 << 20;
constexpr int kHourInMs = 60 * 60 * 1000;
// Waiting groups hold a thread each; the rest is for calls that come and go.
constexpr int kThreadsForCalls = 128;
constexpr std::chrono::milliseconds kTimekeeping{250};

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
  BEARING_ASSIGN_OR_RETURN(server->store_, JobStore::Open(options.store_path));
  SchedulerParts parts{server->store_.get(), &server->feed_, checker, clock, std::move(random), logger};
  BEARING_ASSIGN_OR_RETURN(server->scheduler_, Scheduler::Create(options.scheduler, std::move(parts)));
  BEARING_RETURN_IF_ERROR(server->Listen(checker));
  server->timekeeper_ = std::thread([raw = server.get()] { raw->KeepTime(); });
  return server;
}

absl::Status Server::Listen(const JobChecker* checker) {
  jobs_service_ = std::make_unique<JobsService>(options_.jobs, scheduler_.get(), store_.get(), &feed_, checker, clock_);
  worker_service_ = std::make_unique<WorkerService>(scheduler_.get(), clock_, options_.max_waiting_groups);
  // Pulls in the descriptors of the health protocol, which gRPC itself serves without: reflection can then name it.
  google::protobuf::LinkMessageReflection<grpc::health::v1::HealthCheckRequest>();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(&builder, options_.max_waiting_groups);
  builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(jobs_service_.get());
  builder.RegisterService(worker_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen (is the port taken?): address=", options_.listen));
  }
  server_->GetHealthCheckService()->SetServingStatus(true);
  return absl::OkStatus();
}

Server::~Server() { Stop(); }

void Server::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  if (server_ != nullptr) {
    server_->GetHealthCheckService()->SetServingStatus(false);
    scheduler_->Close();
    feed_.Close();
    server_->Shutdown(std::chrono::system_clock::now() + options_.drain_time);
    server_->Wait();
  }
  if (timekeeper_.joinable()) timekeeper_.join();
}

void Server::KeepTime() {
  const auto lease_ms = std::chrono::duration_cast<std::chrono::milliseconds>(options_.scheduler.lease_time);
  const auto pause =
      std::max(std::chrono::milliseconds(10), std::min({kTimekeeping, lease_ms / 4, options_.jobs.watch_keepalive / 4}));
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(pause))) return;
    }
    scheduler_->ExpireLeases();
    feed_.Tick(clock_->SteadyNow());
  }
}

}  // namespace bearing::coordinator
