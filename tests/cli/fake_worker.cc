// A worker group without a model: leases one job after the other and ends each as FAKE_WORKER says.
//
//   succeed  reports three stages, writes a report and a manifest, completes with a result
//   fail     completes with an error of the select stage
//   die      ends the process (exit status 3) in the middle of the collect stage
//   kill     ends itself with SIGKILL there
//   hang     works on until the job is cancelled
//   deaf     works on whatever comes, SIGTERM included
//   late     works on whatever it is told until the file FAKE_GO is there, then completes with a result
//   mixed    for each lease one of succeed (mostly), fail, die and kill, drawn from FAKE_SEED, the job and the attempt
//
// `trace` and `probe` print what they were told, `calibrate` the file that FAKE_MACHINE names.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "bearing/v1/worker_service.grpc.pb.h"
#include "jobs/artifacts.h"
#include "jobs/job_spec.h"
#include "rpc/client_connection.h"

namespace {

using bearing::v1::WorkerService;

std::string Variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

class FakeGroup {
 public:
  FakeGroup(const std::string& address, std::string mode, int ranks, const std::string& id)
      : connection_(Connect(address)), stub_(WorkerService::NewStub(connection_->channel())), mode_(std::move(mode)) {
    group_.set_id(id.empty() ? "fake-" + std::to_string(getpid()) : id);
    group_.set_ranks(ranks);
    group_.set_memory_bytes_per_rank(int64_t{1} << 30);
    group_.set_device("cpu");
    group_.set_version("0.0.0");
  }

  void Serve() {
    while (true) {
      grpc::ClientContext context;
      Authorize(&context);
      bearing::v1::AcquireLeaseRequest request;
      *request.mutable_group() = group_;
      request.set_wait_seconds(5);
      bearing::v1::AcquireLeaseResponse response;
      if (!stub_->AcquireLease(&context, request, &response).ok()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      } else if (response.has_lease()) {
        Work(response.lease());
      }
    }
  }

 private:
  static std::unique_ptr<bearing::rpc::ClientConnection> Connect(const std::string& address) {
    auto connection = bearing::rpc::ClientConnection::Open(address, bearing::rpc::WithEnvironment({}));
    if (connection.ok()) return *std::move(connection);
    std::fprintf(stderr, "fake worker: %s\n", std::string(connection.status().message()).c_str());
    std::exit(7);
  }

  void Authorize(grpc::ClientContext* context) {
    if (!connection_->Authorize(context).ok()) std::exit(8);
  }

  void Say(const bearing::v1::Lease& lease, const std::string& text) {
    grpc::ClientContext context;
    Authorize(&context);
    bearing::v1::ReportProgressRequest request;
    request.set_group_id(group_.id());
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.set_first_line(1);
    request.add_log_lines()->set_text(text);
    bearing::v1::ReportProgressResponse response;
    stub_->ReportProgress(&context, request, &response);
  }

  // What becomes of this lease.
  std::string Draw(const bearing::v1::Lease& lease) const {
    if (mode_ != "mixed") return mode_;
    const std::string what = lease.job_name() + "/" + std::to_string(lease.attempt()) + "/" + Variable("FAKE_SEED", "0");
    const unsigned draw = std::stoul(bearing::jobs::Sha256OfBytes(what).substr(0, 4), nullptr, 16) % 10;
    return draw == 0 ? "die" : draw == 1 ? "kill" : draw == 2 ? "fail" : "succeed";
  }

  void Work(const bearing::v1::Lease& lease) {
    const std::string mode = Draw(lease);
    stage_times_.clear();
    Say(lease, "hello from the fake worker");
    for (const bearing::v1::Stage stage : {bearing::v1::STAGE_LOAD, bearing::v1::STAGE_COLLECT, bearing::v1::STAGE_SELECT}) {
      const bool endless = stage == bearing::v1::STAGE_COLLECT && (mode == "hang" || mode == "deaf" || mode == "late");
      for (int done = 0; endless || done <= 4; ++done) {
        const bool cancel = Heartbeat(lease, stage, done);
        if (mode == "late" && std::filesystem::exists(Variable("FAKE_GO", ""))) break;
        if (cancel && mode != "deaf" && mode != "late")
          return Complete(lease, [](auto& request) { request.set_cancelled(true); });
        if (mode == "kill" && stage == bearing::v1::STAGE_COLLECT && done == 2) raise(SIGKILL);
        if (mode == "die" && stage == bearing::v1::STAGE_COLLECT && done == 2) {
          std::fprintf(stderr, "fake worker: out of luck\n");
          _exit(3);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      bearing::v1::StageTime time;
      time.set_stage(stage);
      time.set_seconds(1.5);
      time.set_resumed(stage == bearing::v1::STAGE_COLLECT);
      stage_times_.push_back(time);
    }
    if (mode == "fail") {
      return Complete(lease, [](auto& request) {
        request.mutable_error()->set_reason("NO_CANDIDATE");
        request.mutable_error()->set_message("no candidate passes; the best one misses kl_max by 0.02");
        request.mutable_error()->set_stage(bearing::v1::STAGE_SELECT);
      });
    }
    if (mode != "late") WriteArtifacts(lease);
    Complete(lease, [](auto& request) {
      bearing::v1::JobResult& result = *request.mutable_result();
      result.set_layer(15);
      result.set_position(-1);
      result.set_bypass(-7.25);
      result.set_induce(1.5);
      result.set_kl(0.0312);
      result.set_positive_baseline(0.96);
      result.set_positive_ablated(0.02);
      result.set_negative_baseline(0);
      result.set_negative_added(0.98);
      result.set_report("report.html");
      result.set_manifest("manifest.json");
    });
  }

  // Returns whether the job is to be cancelled.
  bool Heartbeat(const bearing::v1::Lease& lease, bearing::v1::Stage stage, int done) {
    grpc::ClientContext context;
    Authorize(&context);
    bearing::v1::HeartbeatRequest request;
    request.set_group_id(group_.id());
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    request.mutable_progress()->set_stage(stage);
    request.mutable_progress()->set_done(done);
    request.mutable_progress()->set_total(4);
    request.mutable_progress()->set_unit("prompts");
    for (const auto& time : stage_times_) *request.add_stage_times() = time;
    bearing::v1::HeartbeatResponse response;
    return stub_->Heartbeat(&context, request, &response).ok() && response.cancel();
  }

  template <typename SetOutcome>
  void Complete(const bearing::v1::Lease& lease, SetOutcome set_outcome) {
    grpc::ClientContext context;
    // Behind a cut, too, whenever the connection tries again.
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    Authorize(&context);
    bearing::v1::CompleteRequest request;
    request.set_group_id(group_.id());
    request.set_job_name(lease.job_name());
    request.set_attempt(lease.attempt());
    for (const auto& time : stage_times_) *request.add_stage_times() = time;
    set_outcome(request);
    bearing::v1::CompleteResponse response;
    const grpc::Status status = stub_->Complete(&context, request, &response);
    if (!status.ok()) std::fprintf(stderr, "fake worker: complete: %s\n", status.error_message().c_str());
  }

  static void WriteArtifacts(const bearing::v1::Lease& lease) {
    const bearing::v1::JobSpec& spec = lease.spec();
    const auto digest = bearing::jobs::SpecDigest(spec);
    if (!digest.ok()) std::exit(4);
    // As the real one: an attempt that was lost behind its manifest has done the work.
    if (lease.attempt() > 1 && std::filesystem::exists(spec.output() + "/manifest.json")) return;
    auto folder = bearing::jobs::OutputFolder::Open(spec.output(), "{}", *digest, "model");
    if (!folder.ok()) std::exit(5);
    std::filesystem::create_directories(folder->PathOf("checkpoint"));
    const bool written = bearing::jobs::WriteFileAtomically(folder->PathOf("report.html"), "<html>").ok() &&
                         bearing::jobs::WriteFileAtomically(folder->PathOf("checkpoint/config.json"), "{}").ok() &&
                         folder->WriteManifest({{"version", "0.0.0"}}).ok();
    if (!written) std::exit(6);
  }

  std::unique_ptr<bearing::rpc::ClientConnection> connection_;
  std::unique_ptr<WorkerService::Stub> stub_;
  std::string mode_;
  bearing::v1::WorkerGroup group_;
  std::vector<bearing::v1::StageTime> stage_times_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = Variable("FAKE_WORKER", "succeed");
  if (mode == "deaf") std::signal(SIGTERM, SIG_IGN);
  if (argc > 1 && (std::string(argv[1]) == "trace" || std::string(argv[1]) == "probe")) {
    // Says what it was told, so that a test can compare.
    if (Variable("OMPI_COMM_WORLD_RANK", "0") != "0") return 0;
    for (int i = 1; i < argc; ++i) std::printf("%s\n", argv[i]);
    std::printf("ranks=%s threads=%s\n", Variable("OMPI_COMM_WORLD_SIZE", "1").c_str(),
                Variable("OMP_NUM_THREADS", "").c_str());
    return 0;
  }
  if (argc > 1 && std::string(argv[1]) == "calibrate") {
    if (Variable("OMPI_COMM_WORLD_RANK", "0") != "0") return 0;
    const auto machine = bearing::jobs::ReadFile(Variable("FAKE_MACHINE", ""));
    if (!machine.ok()) return 2;
    std::printf("%s\n", machine->c_str());
    return 0;
  }
  // With --group-id ID behind it when a launcher looks after it.
  const bool named = argc == 8 && std::string(argv[6]) == "--group-id";
  if ((argc != 6 && !named) || std::string(argv[1]) != "serve" || std::string(argv[2]) != "--coordinator" ||
      std::string(argv[4]) != "--device") {
    return 2;
  }
  if (Variable("OMPI_COMM_WORLD_RANK", "0") != "0") {
    while (true) pause();
  }
  std::fprintf(stderr, "fake worker: device=%s\n", argv[5]);
  FakeGroup(argv[3], mode, std::atoi(Variable("OMPI_COMM_WORLD_SIZE", "1").c_str()), named ? argv[7] : "").Serve();
}
