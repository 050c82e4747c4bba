// The operations of a block with those of ATen, on any device. Where a format has less precision than fp32, an operation of
// ATen computes in fp32 and rounds its result: norm, activation and rotation are rounded where transformers rounds them.
#include <ATen/ATen.h>

#include "worker/model/device_batch.h"
#include "worker/model/device_memory.h"
#include "worker/model/ops.h"

namespace bearing::model {
namespace {

at::Tensor Normalized(const at::Tensor& x, const NormGain& gain, double eps) {
  const int64_t n = x.size(-1);
  // The gain holds values of the type of x, so converting it loses nothing.
  if (gain.cast_first) return at::rms_norm(x, {n}, {}, eps).mul_(gain.gain_D.to(x.scalar_type()));
  return at::rms_norm(x.to(at::kFloat), {n}, gain.gain_D, eps).to(x.scalar_type());
}

class AtenImplementation final : public Ops {
 public:
  void Prepare(const PackedBatch& batch, const at::Device& device, BatchView& view) const override {
    view.on_device = std::make_shared<DeviceBatch>(batch, view, device);
  }

  at::Tensor Embed(const at::Tensor& table, const sharding::Range& vocab, const PackedBatch&,
                   const BatchView& view) const override {
    const at::Tensor rows = view.on_device->token_ids - vocab.begin;
    const at::Tensor here = rows.ge(0).logical_and_(rows.lt(vocab.size()));
    return table.index_select(0, rows.clamp(0, vocab.size() - 1)).mul_(here.unsqueeze(1));
  }

  at::Tensor TakeRead(const at::Tensor& x, const BatchView& view) const override {
    return x.index_select(0, view.on_device->read);
  }

  at::Tensor RmsNorm(const at::Tensor& x, const NormGain& gain, double eps) const override { return Normalized(x, gain, eps); }

  void RmsNormHeads(at::Tensor& x, int64_t column, int64_t num_heads, int64_t head_dim, const NormGain& gain,
                    double eps) const override {
    at::Tensor heads = x.narrow(1, column, num_heads * head_dim).unflatten(1, {num_heads, head_dim});
    heads.copy_(Normalized(heads, gain, eps));
  }

  void ApplyRope(at::Tensor& x, int64_t num_heads, int64_t head_dim, const RopeTable& table,
                 const BatchView& view) const override {
    const DeviceBatch::Rotation& rotation = view.on_device->RotationOf(table);
    const int64_t rotary = rotation.cos.size(2);
    at::Tensor turned = x.narrow(1, 0, num_heads * head_dim).unflatten(1, {num_heads, head_dim}).narrow(2, 0, rotary);
    // (a, b) <- (a cos - b sin, b cos + a sin): the other half of each pair times -sin and sin.
    const at::Tensor other = at::roll(turned, rotary / 2, 2);
    turned.copy_(at::mul(turned, rotation.cos).addcmul_(other, rotation.sin));
  }

  void StoreDecoded(const at::Tensor& kv, const BatchView& view, at::Tensor& stored) const override {
    const DeviceBatch& batch = *view.on_device;
    if (view.decoded_tokens.empty()) return;
    stored.index_copy_(0, batch.decoded_slots, kv.index_select(0, batch.decoded_tokens));
  }

  at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, const BatchView& view, Tokens tokens,
                    const std::array<KeyValues, 2>& sources) const override {
    return view.on_device->PlanOf(tokens == Tokens::kRead).Attend(shape, queries, sources);
  }

  at::Tensor GatedActivation(const at::Tensor& gate_up, sharding::Activation activation) const override {
    const int64_t columns = gate_up.size(1) / 2;
    const at::Tensor gate = gate_up.narrow(1, 0, columns);
    at::Tensor y = activation == sharding::Activation::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
    return y.mul_(gate_up.narrow(1, columns, columns));
  }

  // Tokens are brought into the order of their experts; each expert takes its part. The parts' sizes are the one thing that the
  // host must know.
  void AddExperts(const at::Tensor& x, const at::Tensor& chosen, const at::Tensor& weights, int64_t num_experts,
                  const Expert& expert, at::Tensor& sum) const override {
    const int64_t tokens = chosen.size(0);
    const int64_t top = chosen.size(1);
    const auto [experts, order] = at::sort(chosen.reshape({tokens * top}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const at::Tensor ends = at::searchsorted(experts, at::arange(num_experts, experts.options()), /*out_int32=*/false,
                                             /*right=*/true)
                                .cpu();
    const at::Tensor sorted = x.index_select(0, order.div(top, "floor"));
    at::Tensor outputs = at::empty_like(sorted);  // In the order of (token, place among its experts).
    int64_t begin = 0;
    for (int64_t e = 0; e < num_experts; ++e) {
      const int64_t count = ends.const_data_ptr<int64_t>()[e] - begin;
      if (count > 0) outputs.index_copy_(0, order.narrow(0, begin, count), expert(e, sorted.narrow(0, begin, count)));
      begin += count;
    }
    sum.add_(at::sum(outputs.view({tokens, top, x.size(1)}) * weights.unsqueeze(2), 1));
  }

  void AddWrite(at::Tensor& x, const at::Tensor& write, const BatchView& view, Tokens tokens,
                const WriteSite& site) const override {
    const DeviceBatch& batch = *view.on_device;
    if (!batch.basis_LKD.defined()) {
      x.add_(write);
      return;
    }
    // The components along the vectors of all groups, of which each row takes out its own group's.
    const at::Tensor wide = write.to(at::kFloat);
    const at::Tensor basis = batch.BasisAt(site.layer);
    const at::Tensor components = at::mm(wide, basis.t()).mul_(tokens == Tokens::kAll ? batch.owned_TK : batch.owned_NK);
    if (batch.strengths_SK.defined()) components.mul_(batch.strengths_SK[site.index()]);
    x.add_(at::addmm(wide, components, basis, /*beta=*/1, /*alpha=*/-1));
  }

  void AddVectors(at::Tensor& x, int64_t layer, const BatchView& view) const override {
    for (size_t g = 0; g < view.groups.size(); ++g) {
      const GroupRows& group = view.groups[g];
      if (!group.intervention->add.defined() || group.intervention->add_layer != layer) continue;
      x.narrow(0, group.begin, group.end - group.begin).add_(view.on_device->added_D[g]);
    }
  }
};

}  // namespace

const Ops& AtenOps() {
  static const AtenImplementation ops;
  return ops;
}

}  // namespace bearing::model
