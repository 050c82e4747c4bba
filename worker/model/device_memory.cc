#include "worker/model/device_memory.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace bearing::model {

using c10::impl::VirtualGuardImpl;

at::Tensor StagingTensor(at::IntArrayRef shape, at::ScalarType type, const at::Device& device) {
  return at::empty(shape, at::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
}

at::Tensor SendStaged(const at::Tensor& staged, const at::Device& device) {
  return device.is_cpu() ? staged : staged.to(device, /*non_blocking=*/true);
}

at::Tensor SendTensor(const at::Tensor& tensor, const at::Device& device) {
  if (tensor.device() == device) return tensor;
  at::Tensor staged = StagingTensor(tensor.sizes(), tensor.scalar_type(), device);
  staged.copy_(tensor);
  return SendStaged(staged, device);
}

std::vector<at::Tensor> SendLists(absl::Span<const std::vector<int64_t>> lists, const at::Device& device) {
  int64_t total = 0;
  for (const std::vector<int64_t>& list : lists) total += static_cast<int64_t>(list.size());
  const at::Tensor staged = StagingTensor({total}, at::kLong, device);
  int64_t* to = staged.mutable_data_ptr<int64_t>();
  for (const std::vector<int64_t>& list : lists) to = std::copy(list.begin(), list.end(), to);
  const at::Tensor sent = SendStaged(staged, device);
  std::vector<at::Tensor> tensors;
  int64_t at = 0;
  for (const std::vector<int64_t>& list : lists) {
    const auto n = static_cast<int64_t>(list.size());
    tensors.push_back(sent.narrow(0, at, n));
    at += n;
  }
  return tensors;
}

void Synchronize(const at::Device& device) {
  if (!device.is_cpu()) VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

LoadQueue::LoadQueue(const at::Device& device) : device_(device) {
  if (device.is_cpu()) return;
  stream_ = VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  computed_.emplace(device.type());
  loaded_.emplace(device.type());
}

std::optional<c10::Stream> LoadQueue::Computing() const { return VirtualGuardImpl(device_.type()).getStream(device_); }

void LoadQueue::StartLoading() {
  if (!stream_.has_value()) return;
  computed_->record(*Computing());
  computed_->block(*stream_);
}

void LoadQueue::EnterLoading(std::optional<c10::StreamGuard>& guard) const {
  if (stream_.has_value()) guard.emplace(*stream_);
}

void LoadQueue::FinishLoading() {
  if (stream_.has_value()) loaded_->record(*stream_);
}

void LoadQueue::UseLoaded() {
  if (stream_.has_value()) loaded_->block(*Computing());
}

}  // namespace bearing::model
