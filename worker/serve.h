// The life of a worker group: lease a job, run it on all ranks, report, again.
#ifndef BEARING_WORKER_SERVE_H_
#define BEARING_WORKER_SERVE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "rpc/client_security.h"
#include "worker/comm/communicator.h"

namespace bearing::worker {

struct ServeOptions {
  std::string coordinator;
  rpc::ClientSecurity security;
  bool json_log = false;
  std::string group_id;             // Given by a launcher that reports the end of the group; empty = drawn.
  std::string device_name = "cpu";  // For the log.
  bool keep_staged = false;         // Of cancelled jobs, as for task_runner.h.
  // Leave after so long without a job. Infinite = never.
  absl::Duration exit_when_idle = absl::InfiniteDuration();
};

// Collective; returns when told to leave (idle for too long) or when the coordinator stays away for five minutes.
absl::Status Serve(comm::Communicator& comm, const ServeOptions& options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SERVE_H_
