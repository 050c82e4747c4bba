// The operations of a block in host memory: the kernels of kernels.h and attention.h, and copies.
#include <ATen/ATen.h>

#include <cstring>
#include <vector>

#include "worker/model/ops.h"

namespace bearing::model {
namespace {

// Copies a row of `from` (any row stride) over a row of `to`.
void CopyRow(const at::Tensor& from, int64_t from_row, at::Tensor& to, int64_t to_row) {
  const int64_t bytes = to.size(1) * to.element_size();
  std::memcpy(static_cast<char*>(to.data_ptr()) + to_row * bytes,
              static_cast<const char*>(from.const_data_ptr()) + from_row * from.stride(0) * from.element_size(), bytes);
}

// Tokens of one expert and their weights, tokens ascending.
struct Assigned {
  std::vector<int64_t> tokens;
  std::vector<float> weights;
};

class CpuImplementation final : public Ops {
 public:
  void Prepare(const PackedBatch&, const at::Device&, BatchView&) const override {}

  at::Tensor Embed(const at::Tensor& table, const sharding::Range& vocab, const PackedBatch& batch,
                   const BatchView&) const override {
    at::Tensor rows = at::zeros({batch.num_tokens(), table.size(1)}, table.options());
    for (int64_t t = 0; t < batch.num_tokens(); ++t) {
      const int64_t id = batch.token_ids[t];
      if (id >= vocab.begin && id < vocab.end) CopyRow(table, id - vocab.begin, rows, t);
    }
    return rows;
  }

  at::Tensor TakeRead(const at::Tensor& x, const BatchView& view) const override {
    return x.index_select(0, IndexOf(view.read));
  }

  at::Tensor RmsNorm(const at::Tensor& x, const NormGain& gain, double eps) const override {
    return model::RmsNorm(x, gain, eps);
  }

  void RmsNormHeads(at::Tensor& x, int64_t column, int64_t num_heads, int64_t head_dim, const NormGain& gain,
                    double eps) const override {
    model::RmsNormHeads(x, column, num_heads, head_dim, gain, eps);
  }

  void ApplyRope(at::Tensor& x, int64_t num_heads, int64_t head_dim, const RopeTable& table,
                 const BatchView& view) const override {
    if (!table.has_long_rows()) {
      model::ApplyRope(x, 0, num_heads, head_dim, table.cos, table.sin, view.positions);
      return;
    }
    std::vector<int32_t> rows = view.positions;
    for (size_t t = 0; t < rows.size(); ++t) rows[t] += view.is_long[t] ? static_cast<int32_t>(table.positions) : 0;
    model::ApplyRope(x, 0, num_heads, head_dim, table.cos, table.sin, rows);
  }

  void StoreDecoded(const at::Tensor& kv, const BatchView& view, at::Tensor& stored) const override {
    for (size_t i = 0; i < view.decoded_tokens.size(); ++i) CopyRow(kv, view.decoded_tokens[i], stored, view.decoded_slots[i]);
  }

  at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, const BatchView& view, Tokens tokens,
                    const std::array<KeyValues, 2>& sources) const override {
    if (tokens == Tokens::kAll) return model::Attend(shape, queries, view.rows, sources);
    return TakeRead(model::Attend(shape, queries, view.read_rows, sources), view);
  }

  at::Tensor GatedActivation(const at::Tensor& gate_up, sharding::Activation activation) const override {
    return model::GatedActivation(gate_up, activation);
  }

  void AddExperts(const at::Tensor& x, const at::Tensor& chosen, const at::Tensor& weights, int64_t num_experts,
                  const Expert& expert, at::Tensor& sum) const override {
    std::vector<Assigned> assigned(num_experts);
    const at::Tensor dense_weights = weights.contiguous();
    const at::Tensor dense_chosen = chosen.contiguous();
    const float* w = dense_weights.const_data_ptr<float>();
    const int64_t* e = dense_chosen.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < chosen.numel(); ++i) {
      assigned[e[i]].tokens.push_back(i / chosen.size(1));
      assigned[e[i]].weights.push_back(w[i]);
    }
    for (int64_t i = 0; i < num_experts; ++i) {
      if (assigned[i].tokens.empty()) continue;
      const at::Tensor y = expert(i, x.index_select(0, IndexOf(assigned[i].tokens)));
      ScatterAddRows(sum, y, assigned[i].tokens, assigned[i].weights);
    }
  }

  void AddWrite(at::Tensor& x, const at::Tensor& write, const BatchView& view, Tokens tokens,
                const WriteSite& site) const override {
    const std::vector<GroupRows>& groups = tokens == Tokens::kAll ? view.groups : view.read_groups;
    if (groups.empty()) AddRows(x, write, 0, x.size(0));
    for (const GroupRows& group : groups) {
      const Intervention& what = *group.intervention;
      const float strength = what.ablate_basis.defined() ? what.StrengthAt(site) : 0;
      if (strength == 0) {
        AddRows(x, write, group.begin, group.end);
      } else if (what.ablates_by_layer()) {
        AddProjectedRows(x, write, group.begin, group.end, what.ablate_basis[site.layer], strength);
      } else {
        AddProjectedRows(x, write, group.begin, group.end, what.ablate_basis, strength);
      }
    }
  }

  void AddVectors(at::Tensor& x, int64_t layer, const BatchView& view) const override {
    for (const GroupRows& group : view.groups) {
      if (group.intervention->add.defined() && group.intervention->add_layer == layer) {
        AddVectorRows(x, group.begin, group.end, group.intervention->add);
      }
    }
  }

 private:
  // A view of the list, which must outlive it.
  static at::Tensor IndexOf(const std::vector<int64_t>& list) {
    return at::from_blob(const_cast<int64_t*>(list.data()), {static_cast<int64_t>(list.size())}, at::kLong);
  }
};

}  // namespace

const Ops& CpuOps() {
  static const CpuImplementation ops;
  return ops;
}

}  // namespace bearing::model
