#include "worker/comm/grid.h"

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {

absl::StatusOr<Grid> MakeGrid(Communicator& world, int tensor_parallel) {
  if (tensor_parallel < 1 || world.size() % tensor_parallel != 0) {
    return absl::InvalidArgumentError(absl::StrCat("the number of ranks is not a multiple of the ranks a replica takes: ranks=",
                                                   world.size(), " tensor_parallel=", tensor_parallel));
  }
  const int replica = world.rank() / tensor_parallel;
  const int part = world.rank() % tensor_parallel;
  Grid grid;
  grid.world = &world;
  BEARING_ASSIGN_OR_RETURN(grid.tensor_parallel, world.Split(replica, part, "tensor_parallel"));
  BEARING_ASSIGN_OR_RETURN(grid.replicas, world.Split(part, replica, "replicas"));
  return grid;
}

}  // namespace bearing::comm
