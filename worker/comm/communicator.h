// The collectives that ranks of one group use. Everything above (model, steer, stages) is written against this interface and
// runs unchanged at size 1, where every operation is a no-op.
//
// Every rank of the group must call the same operations in the same order with the same shapes. An operation that does not
// finish within the group's time limit ends the whole group (see mpi_communicator.h); a peer's failure may do the same. Not
// thread-safe: one thread of a rank uses it and all communicators split off it. Tensors are contiguous, in host memory or, for
// a communicator made by cuda_backend.h, on its device.
#ifndef BEARING_WORKER_COMM_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_COMMUNICATOR_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::comm {

enum class ReduceOp { kSum, kMax };

// Exit codes of a process that its group ends: on request, and at a time limit.
inline constexpr int kExitAborted = 70;
inline constexpr int kExitTimedOut = 75;

// A number that starts at 0 and that the ranks of a group share. Unlike a collective, each rank uses it when it likes, and no
// other rank has to take part. One thread of a rank uses it, the one that uses the communicator.
class SharedCounter {
 public:
  virtual ~SharedCounter() = default;

  // Adds `amount` in one step and returns the value before.
  virtual absl::StatusOr<int64_t> FetchAdd(int64_t amount) = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  // Where this rank's work lies: collectives take tensors of this device as well as of host memory. Never changes.
  virtual at::Device device() const { return at::kCPU; }

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place. float32, float64, bfloat16 (summed in fp32, rounded once a step) and int64. Every rank gets the same bits, and
  // the same layout of ranks gets them again. In host memory kMax of a NaN is NaN; on a device it may be the other number.
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

  // The ranks that give the same `color`, ordered by `key` and then by rank. Collective. The new communicator keeps what it
  // needs alive, shares stage and time limit with this one, and Abort on it ends every rank of both. `name` says in messages
  // which group is meant.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) = 0;

  // Collective; destroying the counter is collective too.
  virtual absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() = 0;

  // What the job does now: messages about hanging or failed operations name it. Local.
  virtual void SetStage(const std::string&) {}

  // Ends all ranks of the group at once, saying why. Does not return for process groups.
  virtual void Abort(const std::string& why, int exit_code = kExitAborted) = 0;
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
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int, int, const std::string&) override {
    return std::make_unique<SelfCommunicator>();
  }
  absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() override { return std::make_unique<Counter>(); }
  void Abort(const std::string&, int) override {}

 private:
  class Counter final : public SharedCounter {
   public:
    absl::StatusOr<int64_t> FetchAdd(int64_t amount) override { return std::exchange(value_, value_ + amount); }

   private:
    int64_t value_ = 0;
  };
};

// What all ranks agree on after local work that may fail on some of them: the status of the lowest rank with an error, or Ok.
// Must be called by every rank; afterwards all leave together.
absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& mine);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_COMMUNICATOR_H_
