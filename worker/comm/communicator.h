// The collectives that ranks of one group use. Everything above (model, steer, stages) is written against this interface and
// runs unchanged at size 1, where every operation is a no-op.
//
// Every rank of the group must call the same operations in the same order with the same shapes. An operation that does not
// finish within the group's time limit ends the whole group (see mpi_communicator.h); a peer's failure may do the same. Not
// thread-safe: one thread of a rank uses it. Tensors are contiguous, on the device the communicator was made for.
#ifndef BEARING_WORKER_COMM_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_COMMUNICATOR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::comm {

enum class ReduceOp { kSum, kMax };

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place. float32, float64, bfloat16 (summed in fp32, rounded once a step) and int64. Every rank gets the same bits.
  virtual absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) = 0;

  // Concatenates along the first axis in rank order; the other axes must agree, the first may differ.
  virtual absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) = 0;

  // The tensor of `root` replaces those of the others; shape and dtype must agree beforehand.
  virtual absl::Status Broadcast(at::Tensor& tensor, int root) = 0;

  // The bytes of `root` replace those of the others; sizes need not agree.
  virtual absl::Status BroadcastBytes(std::string& bytes, int root) = 0;

  // BroadcastBytes for waits of any length: the ranks that wait sleep between looks, and the time limit does not apply.
  virtual absl::Status IdleWait(std::string& bytes, int root) = 0;

  virtual absl::Status Barrier() = 0;

  // Ends all ranks of the group at once, saying why. Does not return for process groups.
  virtual void Abort(const std::string& why) = 0;
};

// The group of one.
class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status AllReduce(at::Tensor&, ReduceOp) override { return absl::OkStatus(); }
  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override { return tensor; }
  absl::Status Broadcast(at::Tensor&, int) override { return absl::OkStatus(); }
  absl::Status BroadcastBytes(std::string&, int) override { return absl::OkStatus(); }
  absl::Status IdleWait(std::string&, int) override { return absl::OkStatus(); }
  absl::Status Barrier() override { return absl::OkStatus(); }
  void Abort(const std::string&) override {}
};

// What all ranks agree on after local work that may fail on some of them: the status of the lowest rank with an error, or Ok.
// Must be called by every rank; afterwards all leave together.
absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& mine);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_COMMUNICATOR_H_
