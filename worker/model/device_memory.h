// Ways to and on a device other than the host: copies that the host does not wait for, and a second queue of work for them.
// On the CPU all of it is plain copies, in order.
#ifndef BEARING_WORKER_MODEL_DEVICE_MEMORY_H_
#define BEARING_WORKER_MODEL_DEVICE_MEMORY_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace bearing::model {

// An uninitialized tensor of the host for bytes that go to `device` next: page-locked where the device copies faster from such
// memory. libtorch keeps freed page-locked memory for the next one, and reuses it when the copies from it are done.
at::Tensor StagingTensor(at::IntArrayRef shape, at::ScalarType type, const at::Device& device);

// A tensor made by StagingTensor on the device. The host does not wait for the copy.
at::Tensor SendStaged(const at::Tensor& staged, const at::Device& device);

// A small tensor of the host on the device; the tensor itself where it is there already. The host does not wait.
at::Tensor SendTensor(const at::Tensor& tensor, const at::Device& device);

// The lists as int64 tensors of the device, in one copy.
std::vector<at::Tensor> SendLists(absl::Span<const std::vector<int64_t>> lists, const at::Device& device);

// Waits until the device has done all it was given. Throws c10::Error where that failed.
void Synchronize(const at::Device& device);

// A queue of work of the device beside the one that computes, for one thread that loads what another one computes with. The
// memory of tensors that are made while loading belongs to this queue: when they are freed, what is loaded next may lie there.
// So the computing thread frees them, calls StartLoading, and only then lets the other thread load again.
class LoadQueue {
 public:
  explicit LoadQueue(const at::Device& device);

  // Computing thread: what is loaded from here on comes after all it has given to the device so far.
  void StartLoading();

  // Loading thread: fills `guard`; what the thread gives to the device while that lives goes to this queue.
  void EnterLoading(std::optional<c10::StreamGuard>& guard) const;
  // Loading thread, when all is given.
  void FinishLoading();

  // Computing thread, after that: what it gives to the device from here on comes after what was loaded.
  void UseLoaded();

 private:
  std::optional<c10::Stream> Computing() const;  // Of the calling thread.

  const at::Device device_;
  std::optional<c10::Stream> stream_;  // None on the CPU.
  std::optional<c10::Event> computed_, loaded_;
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_DEVICE_MEMORY_H_
