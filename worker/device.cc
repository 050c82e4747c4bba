#include "worker/device.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/cuda_backend.h"
#include "worker/memory.h"

namespace bearing::worker {
namespace {

// Nothing is loaded where the driver finds no device: the CUDA half of libtorch takes seconds and gigabytes.
absl::Status OpenCuda() {
  std::string why;
  if (!comm::CudaAvailable(&why)) return absl::FailedPreconditionError(why);
  return comm::LoadCuda();
}

absl::StatusOr<comm::CudaDevice> CheckDevice() {
  BEARING_ASSIGN_OR_RETURN(comm::CudaDevice device, comm::CurrentCudaDevice());
  if (device.free_bytes < kLeastDeviceMemory) {
    return absl::FailedPreconditionError(absl::StrCat("too little memory is free on the device: device=cuda:", device.index,
                                                      " ", device.name, " free=", device.free_bytes,
                                                      " need=", kLeastDeviceMemory));
  }
  return device;
}

absl::StatusOr<Placement> PlaceOnCuda(comm::Communicator& world, absl::Duration timeout) {
  Placement placement;
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(world, OpenCuda()));
  comm::CudaOptions options;
  options.timeout = timeout;
  BEARING_ASSIGN_OR_RETURN(placement.on_device, comm::MakeCudaCommunicator(world, options));
  const absl::StatusOr<comm::CudaDevice> device = CheckDevice();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(world, device.status()));
  placement.name = device->name;
  return placement;
}

}  // namespace

std::optional<DeviceChoice> DeviceChoiceFromName(const std::string& name) {
  if (name == "auto") return DeviceChoice::kAuto;
  if (name == "cpu") return DeviceChoice::kCpu;
  if (name == "cuda") return DeviceChoice::kCuda;
  return std::nullopt;
}

absl::StatusOr<Placement> PlaceGroup(DeviceChoice choice, comm::Communicator& world, absl::Duration timeout) {
  Placement cpu;
  cpu.name = "cpu";
  if (choice == DeviceChoice::kCpu) return cpu;
  absl::StatusOr<Placement> placed = PlaceOnCuda(world, timeout);
  if (placed.ok() || choice == DeviceChoice::kCuda || !absl::IsFailedPrecondition(placed.status())) return placed;
  cpu.why_cpu = std::string(placed.status().message());
  return cpu;
}

absl::StatusOr<int64_t> RankMemoryBytes(const comm::Communicator& comm, int ranks_on_host) {
  if (comm.device().is_cpu()) return AvailableMemoryBytes() / ranks_on_host;
  BEARING_ASSIGN_OR_RETURN(const comm::CudaDevice device, comm::CurrentCudaDevice());
  return device.free_bytes;
}

}  // namespace bearing::worker
