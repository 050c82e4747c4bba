// Messages of the API as bytes, call after call, through the handlers of both services with a real store behind them: all but
// the network and the two streams.
//
// An input is a list of calls: one byte that chooses the method, two bytes of length (little-endian), the bytes of the request.
// What does not parse is left out, as gRPC would refuse it before a handler sees it.
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "coordinator/audit_log.h"
#include "coordinator/authenticator.h"
#include "coordinator/call_guard.h"
#include "coordinator/job_checker.h"
#include "coordinator/job_store.h"
#include "coordinator/jobs_service.h"
#include "coordinator/metrics.h"
#include "coordinator/scheduler.h"
#include "coordinator/worker_service.h"
#include "jobs/job_spec.h"
#include "tests/coordinator/fakes.h"
#include "tests/fuzz/require.h"

namespace {

using namespace bearing::coordinator;
using bearing::v1::JobState;

constexpr size_t kMostCalls = 12;

// What is decided without opening a file that a request names. Every model is small and cut in two lines.
class FieldChecker final : public JobChecker {
 public:
  absl::Status Check(bearing::v1::JobSpec* spec, absl::FunctionRef<absl::Status()> proceed) const override {
    bearing::jobs::ApplyDefaults(*spec);
    if (const absl::Status fields = bearing::jobs::ToStatus(bearing::jobs::ValidateFields(*spec)); !fields.ok()) return fields;
    return proceed();
  }
  absl::StatusOr<ModelPlan> Plan(const bearing::v1::JobSpec&, int ranks) const override {
    ModelPlan plan;
    for (int rank = 0; rank < ranks; ++rank) {
      plan.plan.add_ranks()->set_weight_bytes(500);
      plan.compute_bytes.push_back(1000);
    }
    return plan;
  }
};

// Made once; after each input the store is empty again.
class Coordinator {
 public:
  Coordinator() : logger_(NullLogger()) {
    google::protobuf::SetLogHandler(nullptr);  // It says of every input that is no UTF-8 that it is none.
    auto store = JobStore::Open(folder_ / "store");
    auto authenticator = Authenticator::Open("", &clock_, &logger_);
    auto audit = AuditLog::Open("/dev/null", &clock_, &logger_);
    BEARING_REQUIRE(store.ok() && authenticator.ok() && audit.ok());
    store_ = *std::move(store);
    authenticator_ = *std::move(authenticator);
    audit_ = *std::move(audit);
    guard_ = std::make_unique<CallGuard>(authenticator_.get(), audit_.get(), metrics_.get(), &clock_);
    auto scheduler = Scheduler::Create(
        {.keep_ended = std::chrono::hours(1)},
        {store_.get(), &feed_, &checker_, &clock_, Counting(), &logger_, metrics_.get(), bearing::coordinator::PathPolicy()});
    BEARING_REQUIRE(scheduler.ok());
    scheduler_ = *std::move(scheduler);
    JobsServiceOptions options;
    options.version = "0";
    jobs_ = std::make_unique<JobsService>(
        options, JobsServiceParts{scheduler_.get(), store_.get(), &feed_, &checker_, &clock_, guard_.get()});
    workers_ = std::make_unique<WorkerService>(scheduler_.get(), &clock_, guard_.get(), 4);
  }

  void Call(uint8_t method, std::string_view bytes) {
    switch (method % 12) {
      case 0:
        return Send(*jobs_, &JobsService::CreateJob, bytes);
      case 1:
        return Send(*jobs_, &JobsService::GetJob, bytes);
      case 2:
        return Send(*jobs_, &JobsService::ListJobs, bytes);
      case 3:
        return Send(*jobs_, &JobsService::CancelJob, bytes);
      case 4:
        return Send(*jobs_, &JobsService::DeleteJob, bytes);
      case 5:
        return Send(*jobs_, &JobsService::ListArtifacts, bytes);
      case 6:
        return Send(*workers_, &WorkerService::AcquireLease, bytes);
      case 7:
        return Send(*workers_, &WorkerService::Heartbeat, bytes);
      case 8:
        return Send(*workers_, &WorkerService::ReportProgress, bytes);
      case 9:
        return Send(*workers_, &WorkerService::Complete, bytes);
      case 10:
        return Send(*workers_, &WorkerService::ReportExit, bytes);
      default:
        // Time goes by: up to 64 s, twice the life of a lease.
        clock_.Advance(std::chrono::milliseconds(bytes.empty() ? 1000 : 250 * static_cast<uint8_t>(bytes[0])));
        scheduler_->ExpireLeases();
        scheduler_->RemoveOutdated();
    }
  }

  // Of every job, whatever was said: a state that there is, an attempt that is allowed, and a lease exactly while it is held.
  void CheckState() {
    const auto jobs = store_->List({}, 0, 1000);
    BEARING_REQUIRE(jobs.ok());
    int64_t held = 0;
    for (const StoredJob& stored : *jobs) {
      const bearing::v1::Job& job = stored.job;
      BEARING_REQUIRE(bearing::v1::JobState_IsValid(job.state()) && job.state() != bearing::v1::JOB_STATE_UNSPECIFIED);
      BEARING_REQUIRE(!job.name().empty() && job.attempt() >= 0 && job.attempt() <= 3 && stored.sequence >= 1);
      if (job.state() == bearing::v1::JOB_STATE_RUNNING || job.state() == bearing::v1::JOB_STATE_CANCELLING) {
        BEARING_REQUIRE(!stored.group_id.empty() && job.attempt() >= 1);
        ++held;
      }
      if (job.state() == bearing::v1::JOB_STATE_FAILED) BEARING_REQUIRE(job.has_error());
    }
    BEARING_REQUIRE(scheduler_->NumLeases() == held);
  }

  void Clear() {
    // Leases end with the last attempt that a job has.
    for (int round = 0; round < 5 && scheduler_->NumLeases() > 0; ++round) {
      clock_.Advance(std::chrono::minutes(5));
      scheduler_->ExpireLeases();
    }
    BEARING_REQUIRE(scheduler_->NumLeases() == 0);
    const auto jobs = store_->List({}, 0, 1000);
    BEARING_REQUIRE(jobs.ok());
    for (const StoredJob& stored : *jobs) {
      // One that no group holds is cancelled at once.
      if (!IsFinal(stored.job.state())) BEARING_REQUIRE(scheduler_->Cancel(stored.job.name()).ok());
      BEARING_REQUIRE(store_->Delete(stored.id).ok());
    }
  }

 private:
  template <typename Service, typename Request, typename Response>
  void Send(Service& service, grpc::Status (Service::*method)(grpc::ServerContext*, const Request*, Response*),
            std::string_view bytes) {
    Request request;
    if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
    if constexpr (std::is_same_v<Request, bearing::v1::AcquireLeaseRequest>) {
      request.set_wait_seconds(std::min(request.wait_seconds(), 0));  // The clock stands still.
    }
    Response response;
    grpc::ServerContext context;
    const grpc::Status status = (service.*method)(&context, &request, &response);
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::NOT_FOUND:
      case grpc::StatusCode::ALREADY_EXISTS:
      case grpc::StatusCode::FAILED_PRECONDITION:
      case grpc::StatusCode::ABORTED:
        break;
      default:
        std::fprintf(stderr, "%s: %d %s\n", Request::descriptor()->name().c_str(), status.error_code(),
                     status.error_message().c_str());
        BEARING_REQUIRE(false);
    }
    BEARING_REQUIRE(status.ok() != (status.error_message().size() > 0));
    // What is answered can be sent: text is UTF-8, and not larger than clients take.
    Response again;
    BEARING_REQUIRE(again.ParseFromString(response.SerializeAsString()));
    BEARING_REQUIRE(response.ByteSizeLong() < (4u << 20));
  }

  TempDir folder_;
  FakeClock clock_;
  spdlog::logger logger_;
  FieldChecker checker_;
  JobFeed feed_{16};
  const std::unique_ptr<Metrics> metrics_ = Metrics::Create("0");
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<CallGuard> guard_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<JobsService> jobs_;
  std::unique_ptr<WorkerService> workers_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Coordinator* const coordinator = new Coordinator;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (size_t calls = 0; calls < kMostCalls && rest.size() >= 3; ++calls) {
    const auto method = static_cast<uint8_t>(rest[0]);
    const size_t length = static_cast<uint8_t>(rest[1]) + 256u * static_cast<uint8_t>(rest[2]);
    rest.remove_prefix(3);
    const std::string_view bytes = rest.substr(0, length);
    rest.remove_prefix(bytes.size());
    coordinator->Call(method, bytes);
    coordinator->CheckState();
  }
  coordinator->Clear();
  return 0;
}
