#include "worker/group_check.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "sharding/status_macros.h"
#include "worker/device.h"

namespace bearing::worker {
namespace {

constexpr int64_t kNumbers = int64_t{4} << 20;  // 16 MiB.

// Rank r gives r + 1 everywhere: the sum is n (n + 1) / 2, exact in fp32. Returns the seconds it took.
absl::StatusOr<double> CheckSum(comm::Communicator& comm) {
  at::Tensor numbers = at::full({kNumbers}, comm.rank() + 1.0, at::TensorOptions(at::kFloat).device(comm.device()));
  BEARING_RETURN_IF_ERROR(comm.Barrier());
  const absl::Time begin = absl::Now();
  BEARING_RETURN_IF_ERROR(comm.AllReduce(numbers, comm::ReduceOp::kSum));
  const double low = numbers.min().item<double>();  // Waits for a device.
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const double want = 0.5 * comm.size() * (comm.size() + 1);
  absl::Status mine;
  if (low != want || numbers.max().item<double>() != want) {
    mine = absl::InternalError(
        absl::StrCat("a sum over ", comm.size(), " ranks is wrong: rank=", comm.rank(), " got=", low, " expected=", want));
  }
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, mine));
  return seconds;
}

}  // namespace

absl::Status RunGroupCheck(comm::Communicator& world, comm::Communicator& group, const std::string& device_name,
                           const std::string& why_cpu) {
  BEARING_ASSIGN_OR_RETURN(double seconds, CheckSum(world));
  if (&group != &world) {
    BEARING_ASSIGN_OR_RETURN(seconds, CheckSum(group));
  }
  const absl::StatusOr<int64_t> memory = RankMemoryBytes(group, group.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(group, memory.status()));
  at::Tensor negated = at::full({1}, -*memory, at::kLong);  // The smallest of all ranks is the largest negative.
  BEARING_RETURN_IF_ERROR(group.AllReduce(negated, comm::ReduceOp::kMax));
  if (group.rank() == 0) {
    const nlohmann::json found = {{"ranks", group.size()},
                                  {"device", device_name},
                                  {"why_cpu", why_cpu},
                                  {"memory_bytes_per_rank", -negated.item<int64_t>()},
                                  {"exchange_seconds", seconds}};
    std::printf("%s\n", found.dump().c_str());
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace bearing::worker
