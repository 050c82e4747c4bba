// Run by mpirun with several ranks: a plain program, since every rank must take part in every step.
#include "worker/comm/mpi_communicator.h"

#include <cstdio>

#include "tests/worker/communicator_conformance.h"

int main() {
  auto comm = bearing::comm::MpiCommunicator::Create({});
  if (!comm.ok()) {
    std::fprintf(stderr, "%s\n", comm.status().ToString().c_str());
    return 1;
  }
  const absl::Status status = bearing::testing::ExerciseCommunicator(**comm);
  if (!status.ok()) {
    std::fprintf(stderr, "rank %d: %s\n", (*comm)->rank(), status.ToString().c_str());
    return 1;
  }
  return 0;
}
