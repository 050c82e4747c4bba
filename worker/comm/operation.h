// How messages name a collective.
#ifndef BEARING_WORKER_COMM_OPERATION_H_
#define BEARING_WORKER_COMM_OPERATION_H_

#include <cstdint>
#include <string>

namespace bearing::comm {

struct Operation {
  const char* name = nullptr;
  const std::string* group = nullptr;  // Of a split-off communicator; empty for the group of all ranks. Outlives the operation.
  int64_t bytes = 0;                   // Of this rank's tensor.
};

// "rank=1 stage=collect"; without the stage when it is empty.
std::string Place(int rank, const std::string& stage);

// "group=tensor_parallel operation=AllReduce bytes=4096"; without a group that is empty.
std::string Describe(const Operation& operation);

// "rank=1 stage=collect group=tensor_parallel operation=AllReduce bytes=4096".
std::string Describe(int rank, const std::string& stage, const Operation& operation);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_OPERATION_H_
