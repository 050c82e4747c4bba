#include "worker/model/device_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "worker/model/device_memory.h"

namespace bearing::model {

DeviceBatch::DeviceBatch(const PackedBatch& batch, const BatchView& view, const at::Device& device) {
  std::vector<int64_t> group_of_token(batch.num_tokens(), -1);
  std::vector<int64_t> group_of_vector;
  std::vector<at::Tensor> bases;
  for (size_t g = 0; g < view.groups.size(); ++g) {
    const GroupRows& group = view.groups[g];
    std::fill(group_of_token.begin() + group.begin, group_of_token.begin() + group.end, static_cast<int64_t>(g));
    const Intervention& intervention = *group.intervention;
    added_D.push_back(intervention.add.defined() ? SendTensor(intervention.add, device) : at::Tensor());
    if (!intervention.ablate_basis.defined()) continue;
    bases.push_back(intervention.ablate_basis);
    group_of_vector.insert(group_of_vector.end(), intervention.ablate_basis.size(0), static_cast<int64_t>(g));
  }
  std::vector<at::Tensor> sent = SendLists({{batch.token_ids,
                                             {view.positions.begin(), view.positions.end()},
                                             {view.is_long.begin(), view.is_long.end()},
                                             view.read,
                                             view.decoded_tokens,
                                             view.decoded_slots,
                                             group_of_token,
                                             group_of_vector}},
                                           device);
  token_ids = std::move(sent[0]);
  positions_ = std::move(sent[1]);
  is_long_ = std::move(sent[2]);
  read = std::move(sent[3]);
  decoded_tokens = std::move(sent[4]);
  decoded_slots = std::move(sent[5]);
  if (!bases.empty()) {
    basis_KD = SendTensor(at::cat(bases, 0), device);
    owned_TK = sent[6].unsqueeze(1).eq(sent[7].unsqueeze(0)).to(at::kFloat);
    owned_NK = owned_TK.index_select(0, read);
  }
  rows_ = std::make_unique<AttentionPlan>(view.rows, device);
  read_rows_ = std::make_unique<AttentionPlan>(view.read_rows, device);
}

const DeviceBatch::Rotation& DeviceBatch::RotationOf(const RopeTable& table) {
  for (const Made& made : rotations_) {
    if (made.table.is_same(table.cos)) return made.rotation;
  }
  const at::Tensor rows = table.has_long_rows() ? at::add(positions_, is_long_, table.positions) : positions_;
  const at::Tensor cos = table.cos.index_select(0, rows).unsqueeze(1);
  const at::Tensor sin = table.sin.index_select(0, rows).unsqueeze(1);
  rotations_.push_back({table.cos, {at::cat({cos, cos}, 2), at::cat({-sin, sin}, 2)}});
  return rotations_.back().rotation;
}

}  // namespace bearing::model
