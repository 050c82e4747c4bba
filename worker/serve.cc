#include "worker/serve.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
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

void Log(const std::string& line) {
  std::fprintf(stderr, "bearing-worker: %s\n", line.c_str());
  std::fflush(stderr);
}

// Rank 0: waits for a job. Sets `job`, or says how the group ends.
Next WaitForJob(CoordinatorLink& link, const ServeOptions& options, std::unique_ptr<LeasedJob>& job, absl::Status& failure) {
  const absl::Time idle_since = absl::Now();
  absl::Time last_answer = absl::Now();
  while (true) {
    auto acquired = link.Acquire(kPoll);
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

}  // namespace

absl::Status Serve(comm::Communicator& comm, const ServeOptions& options) {
  const absl::StatusOr<int64_t> memory = RankMemoryBytes(comm, comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, memory.status()));
  at::Tensor negated = at::full({1}, -*memory, at::kLong);  // The smallest of all ranks is the largest negative.
  BEARING_RETURN_IF_ERROR(comm.AllReduce(negated, comm::ReduceOp::kMax));
  const bool on_gpu = comm.device().is_cuda();
  std::unique_ptr<CoordinatorLink> link;
  if (comm.rank() == 0) {
    bearing::v1::WorkerGroup group;
    group.set_id(NewGroupId());
    group.set_ranks(comm.size());
    group.set_memory_bytes_per_rank(-negated.item<int64_t>());
    group.set_device(on_gpu ? "cuda" : "cpu");
    group.set_version(kVersion);
    link = CoordinatorLink::Connect(options.coordinator, group);
    Log(absl::StrCat("group ", group.id(), " of ", comm.size(), " rank(s) serves ", options.coordinator, " on ",
                     options.device_name));
  }
  while (true) {
    std::unique_ptr<LeasedJob> job;
    absl::Status failure;
    std::string next;
    if (comm.rank() == 0) next = std::string(1, static_cast<char>(WaitForJob(*link, options, job, failure)));
    // Idle ranks sleep instead of spinning in the broadcast.
    BEARING_RETURN_IF_ERROR(comm.IdleWait(next, 0));
    if (next[0] == static_cast<char>(Next::kLeave)) return absl::OkStatus();
    if (next[0] == static_cast<char>(Next::kFail)) return failure;
    const TaskOutcome outcome = RunTask(comm, job != nullptr ? &job->lease() : nullptr, job.get());
    if (job == nullptr) continue;
    const std::string name = job->lease().job_name();
    Log(absl::StrCat("job=", name, " attempt=", job->lease().attempt(), " ",
                     outcome.status.ok() ? "succeeded" : "ended: ", outcome.status.ok() ? "" : outcome.status.ToString()));
    const absl::Status told = job->Complete(outcome);
    if (!told.ok()) Log(absl::StrCat("job=", name, " the coordinator did not take the outcome: ", told.ToString()));
  }
}

}  // namespace bearing::worker
