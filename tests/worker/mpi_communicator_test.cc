// Run by mpirun with several ranks: a plain program, since every rank must take part in every step.
//
//   mpi_communicator_test          everything that ends well
//   mpi_communicator_test abort    the last rank ends all, from inside its replica
//   mpi_communicator_test hang     the last rank sleeps while the others wait for it
#include "worker/comm/mpi_communicator.h"

#include <cstdio>
#include <string>
#include <thread>

#include "tests/worker/communicator_conformance.h"
#include "tests/worker/grid_conformance.h"

namespace bearing::testing {
namespace {

absl::Status Conforms(comm::Communicator& world) {
  BEARING_RETURN_IF_ERROR(ExerciseCommunicator(world));
  BEARING_RETURN_IF_ERROR(ExerciseBits(world));
  return ExerciseLayouts(world);
}

absl::Status OneAborts(comm::Communicator& world) {
  BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, 2));
  world.SetStage("select");
  if (world.rank() == world.size() - 1) grid.tensor_parallel->Abort("bad shard");
  return grid.tensor_parallel->rank() == 0 ? grid.replicas->Barrier() : grid.tensor_parallel->Barrier();
}

absl::Status OneHangs(comm::Communicator& world) {
  BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, world.size()));
  world.SetStage("collect");
  at::Tensor tensor = at::ones({1024});
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  return grid.tensor_parallel->AllReduce(tensor, comm::ReduceOp::kSum);
}

}  // namespace
}  // namespace bearing::testing

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "conforms";
  auto world = bearing::comm::MpiCommunicator::Create({what == "hang" ? absl::Seconds(1) : absl::Minutes(1)});
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return 1;
  }
  const absl::Status status = what == "abort"  ? bearing::testing::OneAborts(**world)
                              : what == "hang" ? bearing::testing::OneHangs(**world)
                                               : bearing::testing::Conforms(**world);
  if (!status.ok()) (*world)->Abort(status.ToString(), 1);
  if ((*world)->rank() == 0) std::printf("%d rank(s): ok\n", (*world)->size());
  return 0;
}
