#include "worker/model/device_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "worker/model/device_memory.h"

namespace bearing::model {

DeviceBatch::DeviceBatch(const PackedBatch& batch, const BatchView& view, const at::Device& device) {
  std::vector<int64_t> group_of_token(batch.num_tokens(), -1);
  std::vector<int64_t> group_of_vector;
  for (size_t g = 0; g < view.groups.size(); ++g) {
    const GroupRows& group = view.groups[g];
    std::fill(group_of_token.begin() + group.begin, group_of_token.begin() + group.end, static_cast<int64_t>(g));
    const Intervention& intervention = *group.intervention;
    added_D.push_back(intervention.add.defined() ? SendTensor(intervention.add, device) : at::Tensor());
    group_of_vector.insert(group_of_vector.end(), intervention.num_vectors(), static_cast<int64_t>(g));
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
  if (!group_of_vector.empty()) {
    SendInterventions(view, device);
    owned_TK = sent[6].unsqueeze(1).eq(sent[7].unsqueeze(0)).to(at::kFloat);
    owned_NK = owned_TK.index_select(0, read);
  }
  rows_ = std::make_unique<AttentionPlan>(view.rows, device);
  read_rows_ = std::make_unique<AttentionPlan>(view.read_rows, device);
}

void DeviceBatch::SendInterventions(const BatchView& view, const at::Device& device) {
  std::vector<at::Tensor> bases;
  std::vector<at::Tensor> strengths;
  int64_t layers = 1;
  int64_t sites = 0;
  for (const GroupRows& group : view.groups) {
    const Intervention& intervention = *group.intervention;
    if (intervention.ablates_by_layer()) layers = intervention.ablate_basis.size(0);
    if (intervention.num_vectors() > 0 && intervention.strengths.defined()) sites = intervention.strengths.size(0);
  }
  for (const GroupRows& group : view.groups) {
    const Intervention& intervention = *group.intervention;
    const int64_t k = intervention.num_vectors();
    if (k == 0) continue;
    const at::Tensor& basis = intervention.ablate_basis;
    bases.push_back(basis.expand({layers, k, basis.size(-1)}));
    if (sites == 0) continue;
    strengths.push_back(
        (intervention.strengths.defined() ? intervention.strengths : at::ones({sites})).unsqueeze(1).expand({sites, k}));
  }
  basis_LKD = SendTensor(at::cat(bases, 1), device);
  if (sites > 0) strengths_SK = SendTensor(at::cat(strengths, 1), device);
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
