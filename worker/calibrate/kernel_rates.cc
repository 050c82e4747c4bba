#include "worker/calibrate/kernel_rates.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "sharding/status_macros.h"
#include "worker/edit/projection.h"
#include "worker/model/attention.h"
#include "worker/model/device_memory.h"
#include "worker/model/rope.h"

namespace bearing::worker {
namespace {

constexpr int64_t kTokenCounts[] = {1, 8, 32, 128, 512, 2048};
constexpr double kSecondsOfOne = 0.12;  // Repetitions of a timing end when they took so long together.
constexpr double kLongest = 0.5;        // A count of tokens that would take longer is left out.
constexpr int64_t kBeyondCaches = int64_t{128} << 20;
constexpr int64_t kElementwiseTokens = 512;
constexpr int64_t kRows = 32;

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double D(int64_t n) { return static_cast<double>(n); }

// The products of one block.
struct BlockProducts {
  model::Linear qkv, out, gate_up, down;
  int64_t elements = 0;
};

}  // namespace

absl::StatusOr<double> TimeOnAllRanks(comm::Communicator& comm, const std::function<void()>& work) {
  work();  // First calls allocate and choose kernels.
  model::Synchronize(comm.device());
  BEARING_RETURN_IF_ERROR(comm.Barrier());
  std::vector<double> times;
  const double start = Now();
  while (times.size() < 3 || (times.size() < 50 && Now() - start < kSecondsOfOne)) {
    const double before = Now();
    work();
    model::Synchronize(comm.device());
    times.push_back(Now() - before);
    if (times.size() >= 2 && Now() - start > kLongest) break;
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  at::Tensor slowest = at::full({1}, times[times.size() / 2], at::kDouble);
  BEARING_RETURN_IF_ERROR(comm.AllReduce(slowest, comm::ReduceOp::kMax));
  return std::max(slowest.item<double>(), 1e-9);
}

at::Tensor KernelRates::Random(at::IntArrayRef shape) const { return Made(at::rand(shape).sub_(0.5).to(dtype_)); }

absl::StatusOr<std::vector<jobs::ProductRate>> KernelRates::Products() {
  const int64_t d = shapes_.d_model;
  const int64_t qkv = (shapes_.heads + 2 * shapes_.kv_heads) * shapes_.head_dim;
  const int64_t width = shapes_.heads * shapes_.head_dim;
  const int64_t elements = d * (qkv + width + 3 * shapes_.columns);
  const int64_t bytes = elements * at::elementSize(dtype_);
  const int64_t copies = std::clamp<int64_t>(kBeyondCaches / bytes, 1, shapes_.layers);
  const auto linear = [&](int64_t out, int64_t in) { return model::Linear(Random({out, in}), at::Tensor(), dtype_, path_); };
  std::vector<BlockProducts> blocks;
  for (int64_t i = 0; i < copies; ++i) {
    blocks.push_back({linear(qkv, d), linear(d, width), linear(2 * shapes_.columns, d), linear(d, shapes_.columns), elements});
  }
  std::vector<jobs::ProductRate> rates;
  for (const int64_t tokens : kTokenCounts) {
    const double flops = 2 * D(tokens) * D(elements);
    if (tokens > 128 && flops / rates.back().flops_per_s > kLongest) break;
    const at::Tensor x = Random({tokens, d});
    const at::Tensor heads = Random({tokens, width});
    const at::Tensor columns = Random({tokens, shapes_.columns});
    size_t next = 0;
    // One block at few tokens is too short to time, and the next one's weights must come from memory.
    const int64_t at_once = tokens <= 32 ? copies : 1;
    BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                               for (int64_t i = 0; i < at_once; ++i) {
                                 const BlockProducts& block = blocks[next++ % blocks.size()];
                                 block.qkv.Forward(x);
                                 block.out.Forward(heads);
                                 block.gate_up.Forward(x);
                                 block.down.Forward(columns);
                               }
                             }));
    rates.push_back({tokens, flops * D(at_once) / seconds});
  }
  return rates;
}

absl::StatusOr<double> KernelRates::Attention() {
  model::AttentionShape shape;
  shape.num_heads = shapes_.heads;
  shape.num_kv_heads = shapes_.kv_heads;
  shape.head_dim = shapes_.head_dim;
  shape.scale = 0.1;
  for (int64_t h = 0; h < shapes_.heads; ++h) shape.kv_head_of.push_back(h * shapes_.kv_heads / shapes_.heads);
  const int64_t p = shapes_.prefix_tokens;
  const int64_t own = shapes_.prompt_tokens;
  const int64_t tokens = p + kRows * own;
  const at::Tensor qkv = Random({tokens, (shapes_.heads + 2 * shapes_.kv_heads) * shapes_.head_dim});
  const int64_t q = shapes_.heads * shapes_.head_dim;
  const int64_t kv = shapes_.kv_heads * shapes_.head_dim;
  const model::KeyValues batch{qkv.narrow(1, q, kv), qkv.narrow(1, q + kv, kv)};
  model::BatchView view;
  view.positions.assign(tokens, 0);
  view.is_long.assign(tokens, false);
  for (int64_t r = 0; r < kRows; ++r) {
    model::AttentionRow row;
    row.begin = p + r * own;
    row.num_queries = own;
    if (p > 0) row.spans[row.num_spans++] = {model::KeySource::kBatch, 0, p};
    row.spans[row.num_spans++] = {model::KeySource::kBatch, row.begin, own};
    view.rows.push_back(row);
  }
  model::PackedBatch packed;
  packed.token_ids.assign(tokens, 0);
  ops().Prepare(packed, comm_.device(), view);
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                             ops().Attend(shape, qkv, view, model::Tokens::kAll, {batch, {}});
                           }));
  return 4 * D(kRows * own) * D(p + own) * D(q) / seconds;
}

absl::StatusOr<double> KernelRates::DecodeAttention() {
  const int64_t own = shapes_.prompt_tokens;
  shapes_.prefix_tokens += own;
  shapes_.prompt_tokens = 1;
  const absl::StatusOr<double> rate = Attention();
  shapes_.prefix_tokens -= own;
  shapes_.prompt_tokens = own;
  return rate;
}

absl::StatusOr<double> KernelRates::Elementwise() {
  const int64_t t = kElementwiseTokens;
  const int64_t rotated = shapes_.heads + shapes_.kv_heads;
  at::Tensor x = Random({t, shapes_.d_model});
  const at::Tensor write = Random({t, shapes_.d_model});
  at::Tensor qkv = Random({t, (rotated + shapes_.kv_heads) * shapes_.head_dim});
  const at::Tensor gate_up = Random({t, 2 * shapes_.columns});
  const model::NormGain gain{Made(at::ones({shapes_.d_model})), true};
  model::Intervention ablation;
  ablation.ablate_basis = at::ones({1, shapes_.d_model}) * 1e-3;
  sharding::RopeSpec rope;
  rope.rotary_dim = shapes_.rotary_dim;
  model::RopeTable table = model::MakeRopeTable(rope, t);
  table.cos = Made(table.cos);
  table.sin = Made(table.sin);
  model::BatchView plain;
  plain.positions.resize(t);
  std::iota(plain.positions.begin(), plain.positions.end(), 0);
  plain.is_long.assign(t, false);
  model::BatchView ablated = plain;
  ablated.groups.push_back({&ablation, 0, t});
  model::PackedBatch packed;
  packed.token_ids.assign(t, 0);
  ops().Prepare(packed, comm_.device(), plain);
  ops().Prepare(packed, comm_.device(), ablated);
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                             ops().RmsNorm(x, gain, 1e-6);
                             ops().ApplyRope(qkv, rotated, shapes_.head_dim, table, plain);
                             ops().AddWrite(x, write, plain, model::Tokens::kAll, model::WriteSite());
                             ops().RmsNorm(x, gain, 1e-6);
                             ops().GatedActivation(gate_up, sharding::Activation::kSilu);
                             ops().AddWrite(x, write, ablated, model::Tokens::kAll, model::WriteSite());
                           }));
  return D(at::elementSize(dtype_)) * D(t) * D(10 * shapes_.d_model + 2 * rotated * shapes_.head_dim + 3 * shapes_.columns) /
         seconds;
}

absl::StatusOr<double> KernelRates::Memory() {
  const at::Tensor from = Made(at::ones({kBeyondCaches / 2 / 4}, at::kFloat));
  at::Tensor to = at::empty_like(from);
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] { to.copy_(from); }));
  return 2 * D(static_cast<int64_t>(from.nbytes())) / seconds;
}

absl::StatusOr<double> KernelRates::Vocabulary() {
  const at::Tensor logits = Made(at::rand({kRows, shapes_.vocab}));
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                             at::Tensor p = logits;
                             p.sub_(at::amax(p, 1).unsqueeze(1)).exp_();
                             p.div_(at::sum(p, 1, false, at::kDouble).to(at::kFloat).unsqueeze(1));
                           }));
  return D(kRows * shapes_.vocab) / seconds;
}

absl::StatusOr<double> KernelRates::Edit(at::ScalarType stored) {
  const int64_t columns = std::clamp<int64_t>((int64_t{1} << 22) / shapes_.d_model, 1, std::max<int64_t>(1, shapes_.columns));
  const at::Tensor weight = at::rand({shapes_.d_model, columns}).to(stored);
  const double element = 1.0 / std::sqrt(static_cast<double>(shapes_.d_model));
  const edit::Basis basis{shapes_.d_model, 1, std::vector<double>(static_cast<size_t>(shapes_.d_model), element)};
  const sharding::DType dtype = stored == at::kFloat  ? sharding::DType::kF32
                                : stored == at::kHalf ? sharding::DType::kF16
                                                      : sharding::DType::kBF16;
  char* const values = static_cast<char*>(weight.data_ptr());
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                             edit::ColumnSums sums(1, columns);
                             edit::SumColumns(basis, dtype, values, 0, shapes_.d_model, columns, &sums);
                             edit::RemoveFromColumns({.basis = &basis}, sums, dtype, values, 0, shapes_.d_model, columns);
                           }));
  return D(weight.numel()) / seconds;
}

absl::StatusOr<double> KernelRates::Prepare(at::ScalarType stored) {
  const at::Tensor weight = at::rand({2 * shapes_.columns, shapes_.d_model}).to(stored);
  BEARING_ASSIGN_OR_RETURN(const double seconds, TimeOnAllRanks(comm_, [&] {
                             model::Linear(model::SendTensor(weight, comm_.device()), at::Tensor(), dtype_, path_);
                           }));
  return D(static_cast<int64_t>(weight.nbytes())) / seconds;
}

}  // namespace bearing::worker
