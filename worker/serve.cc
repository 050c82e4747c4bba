#include "worker/serve.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "sharding/status_macros.h"
#include "worker/coordinator_link.h"
#include "worker/device.h"
#include "worker/task_runner.h"
#include "worker/version.h"

namespace bearing::worker {
namespace {

constexpr absl::Duration kPoll = absl::Seconds(5);
constexpr absl::Duration kCoordinatorPatience = absl::Minutes(5);

enum class Next : char { kRun = 'r', kLeave = 'l', kFail = 'f' };

std::string NewGroupId() {
  std::random_device random;
  return absl::StrFormat("group-%08x%08x", random(), random());
}

// Lines of rank 0, as text or as one JSON object each; `about` are its fields, such as job and attempt.
class Logger {
 public:
  explicit Logger(bool json) : json_(json) {}

  void Say(const char* level, const std::string& message, nlohmann::json about = nlohmann::json::object()) const {
    std::string line;
    if (json_) {
      about["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
      about["level"] = level;
      about["message"] = message;
      about["rank"] = 0;
      line = about.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    } else {
      line = "bearing-worker:";
      for (const auto& [key, value] : about.items()) {
        absl::StrAppend(&line, " ", key, "=", value.is_string() ? value.get<std::string>() : value.dump());
      }
      absl::StrAppend(&line, " ", message);
    }
    std::fprintf(stderr, "%s\n", line.c_str());
    std::fflush(stderr);
  }

 private:
  const bool json_;
};

// Rank 0: waits for a job. Sets `job`, or says how the group ends.
Next WaitForJob(CoordinatorLink& link, const ServeOptions& options, const std::string& model_key,
                std::unique_ptr<LeasedJob>& job, absl::Status& failure) {
  const absl::Time idle_since = absl::Now();
  absl::Time last_answer = absl::Now();
  while (true) {
    auto acquired = link.Acquire(kPoll, model_key);
    if (acquired.ok()) {
      last_answer = absl::Now();
      if (*acquired != nullptr) {
        job = *std::move(acquired);
        return Next::kRun;
      }
    } else if (!absl::IsUnavailable(acquired.status()) && !absl::IsDeadlineExceeded(acquired.status())) {
      failure = acquired.status();
      return Next::kFail;
    } else if (absl::Now() - last_answer > kCoordinatorPatience) {
      failure = absl::UnavailableError(absl::StrCat("no answer from the coordinator: address=", options.coordinator,
                                                    " error=", std::string(acquired.status().message())));
      return Next::kFail;
    } else {
      absl::SleepFor(absl::Seconds(1));
    }
    if (absl::Now() - idle_since > options.exit_when_idle) return Next::kLeave;
  }
}

absl::Status OpenLink(const ServeOptions& options, const bearing::v1::WorkerGroup& group,
                      std::unique_ptr<CoordinatorLink>& link) {
  BEARING_ASSIGN_OR_RETURN(link, CoordinatorLink::Connect(options.coordinator, options.security, group));
  return absl::OkStatus();
}

}  // namespace

absl::Status Serve(comm::Communicator& comm, const ServeOptions& options) {
  const absl::StatusOr<int64_t> memory = RankMemoryBytes(comm, comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, memory.status()));
  at::Tensor negated = at::full({1}, -*memory, at::kLong);  // The smallest of all ranks is the largest negative.
  BEARING_RETURN_IF_ERROR(comm.AllReduce(negated, comm::ReduceOp::kMax));
  const bool on_gpu = comm.device().is_cuda();
  const Logger log(options.json_log);
  std::unique_ptr<CoordinatorLink> link;
  absl::Status connected;
  if (comm.rank() == 0) {
    bearing::v1::WorkerGroup group;
    group.set_id(options.group_id.empty() ? NewGroupId() : options.group_id);
    group.set_ranks(comm.size());
    group.set_memory_bytes_per_rank(-negated.item<int64_t>());
    group.set_device(on_gpu ? "cuda" : "cpu");
    group.set_version(kVersion);
    connected = OpenLink(options, group, link);
    if (connected.ok()) {
      log.Say("info", absl::StrCat("group ", group.id(), " of ", comm.size(), " rank(s) serves ", options.coordinator, " on ",
                                   options.device_name));
    }
  }
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, connected));
  GroupMemory before;
  while (true) {
    std::unique_ptr<LeasedJob> job;
    absl::Status failure;
    std::string next;
    if (comm.rank() == 0) next = std::string(1, static_cast<char>(WaitForJob(*link, options, before.model.key, job, failure)));
    // Idle ranks sleep instead of spinning in the broadcast.
    BEARING_RETURN_IF_ERROR(comm.IdleWait(next, 0));
    if (next[0] == static_cast<char>(Next::kLeave)) return absl::OkStatus();
    if (next[0] == static_cast<char>(Next::kFail)) return failure;
    const TaskOutcome outcome = RunTask(comm, job != nullptr ? &job->lease() : nullptr, job.get(), &before,
                                        options.keep_staged ? WhenCancelled::kKeepStaged : WhenCancelled::kDropStaged);
    if (job == nullptr) continue;
    const nlohmann::json about = {{"job", job->lease().job_name()}, {"attempt", job->lease().attempt()}};
    const bool ok = outcome.status.ok();
    log.Say(ok ? "info" : "error", ok ? "succeeded" : absl::StrCat("ended: ", outcome.status.ToString()), about);
    // Nobody waits for what a group says that was stopped because it lost its lease; asking for other work gives up what is
    // left of it. Any other outcome is told: Complete hears whether the lease still counts.
    if (absl::IsAborted(outcome.status) && absl::IsAborted(job->ShouldStop())) continue;
    if (!ok && !absl::IsCancelled(outcome.status)) job->OnLog("error", std::string(outcome.status.message()));
    const absl::Status told = job->Complete(outcome);
    if (!told.ok()) log.Say("error", absl::StrCat("the coordinator did not take the outcome: ", told.ToString()), about);
  }
}

}  // namespace bearing::worker
