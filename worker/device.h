// Where a worker group computes: in host memory, or on one CUDA device a rank.
#ifndef BEARING_WORKER_DEVICE_H_
#define BEARING_WORKER_DEVICE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace bearing::worker {

// kAuto: CUDA when every rank has a device of its own with at least kLeastDeviceMemory free, else the CPU.
enum class DeviceChoice { kAuto, kCpu, kCuda };
inline constexpr int64_t kLeastDeviceMemory = int64_t{2} << 30;

// "auto", "cpu", "cuda".
std::optional<DeviceChoice> DeviceChoiceFromName(const std::string& name);

struct Placement {
  // Over the ranks of `world`, with this rank's device as its own; null = the CPU, with `world` itself.
  std::unique_ptr<comm::Communicator> on_device;
  std::string name;     // Of the device, as its driver calls it; "cpu".
  std::string why_cpu;  // kAuto: why not CUDA.
};

// Collective over `world`, which must outlive the result; all ranks come to the same choice. Call it before anything asks ATen
// for a device. With kCuda FailedPrecondition, naming the rank's host and what is missing. `timeout`: of an operation on the
// device, as that of a collective.
absl::StatusOr<Placement> PlaceGroup(DeviceChoice choice, comm::Communicator& world, absl::Duration timeout);

// Memory that this rank's tensors may still take: of its device, or its share of the host's. Local. `ranks_on_host`: ranks that
// share this host.
absl::StatusOr<int64_t> RankMemoryBytes(const comm::Communicator& comm, int ranks_on_host);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_DEVICE_H_
