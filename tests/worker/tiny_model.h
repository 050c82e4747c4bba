// The committed tiny models and their golden traces, for tests.
#ifndef BEARING_TESTS_WORKER_TINY_MODEL_H_
#define BEARING_TESTS_WORKER_TINY_MODEL_H_

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sharding/checkpoint_reader.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/comm/thread_communicator.h"
#include "worker/model/decoder.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::testing {

// Where they lie; a program that was carried elsewhere is told by a variable (scripts/pack_gpu).
inline std::string TinyPath(const std::string& name) {
  const char* carried = std::getenv("BEARING_TINY_MODELS");
  return carried != nullptr ? std::string(carried) + "/" + name
                            : std::string(BEARING_SOURCE_DIR) + "/tests/golden/tiny/" + name;
}

// All F32 and I64 tensors of a small safetensors file.
inline std::map<std::string, at::Tensor> ReadTensors(const std::string& path) {
  std::map<std::string, at::Tensor> tensors;
  const auto header = sharding::ReadSafetensorsHeader(path);
  EXPECT_TRUE(header.ok()) << header.status();
  if (!header.ok()) return tensors;
  for (const sharding::SafetensorsEntry& entry : header->entries) {
    if (entry.dtype != sharding::DType::kF32 && entry.dtype != sharding::DType::kI64) continue;
    at::Tensor tensor = at::empty(entry.shape, entry.dtype == sharding::DType::kF32 ? at::kFloat : at::kLong);
    std::ifstream file(path, std::ios::binary);
    file.seekg(entry.file_offset);
    file.read(static_cast<char*>(tensor.data_ptr()), entry.num_bytes);
    tensors[entry.name] = tensor;
  }
  return tensors;
}

// Rows of a golden trace.
inline steer::Rows RowsOf(const std::map<std::string, at::Tensor>& trace) {
  steer::Rows rows;
  const at::Tensor& ids = trace.at("token_ids");
  for (int64_t r = 0; r < ids.size(0); ++r) {
    std::vector<int32_t> row;
    for (int64_t t = 0; t < trace.at("lengths")[r].item<int64_t>(); ++t) row.push_back(ids[r][t].item<int32_t>());
    rows.push_back(row);
  }
  return rows;
}

// Largest difference relative to each vector's (last axis) largest value.
inline double WorstRelative(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor scale = at::amax(at::abs(want), {-1}, /*keepdim=*/true);
  return at::amax(at::abs(got - want) / scale).item<double>();
}

// Runs `body` with a decoder of the model on `ranks` thread ranks.
inline absl::Status WithDecoder(const std::string& folder, int ranks, at::ScalarType dtype,
                                const std::function<absl::Status(model::Decoder&)>& body,
                                model::GemmPath path = model::GemmPath::kPlain,
                                model::Residency residency = model::Residency::kResident, int64_t stream_tokens = 1 << 16,
                                bool aten_ops = false) {
  return comm::RunThreadRanks(ranks, [&](comm::Communicator& comm) -> absl::Status {
    auto reader = sharding::CheckpointReader::Open(folder);
    if (!reader.ok()) return reader.status();
    auto plan = sharding::MakeShardPlan((*reader)->config(), (*reader)->layout(), ranks);
    if (!plan.ok()) return plan.status();
    model::DecoderOptions options;
    options.dtype = dtype;
    options.gemm_path = path;
    options.residency = residency;
    options.stream_tokens = stream_tokens;
    options.aten_ops = aten_ops;
    auto decoder = model::Decoder::Load(**reader, *plan, comm, options);
    if (!decoder.ok()) return decoder.status();
    return body(**decoder);
  });
}

// How ranks hold a model.
struct Layout {
  int ranks = 1;
  int tensor_parallel = 1;  // The rest are replicas.
  model::Residency residency = model::Residency::kResident;
  int64_t stream_tokens = 1 << 16;
  bool aten_ops = false;  // What runs on a device, here on the CPU.
};

// The layout with the operations of ATen.
inline Layout OnAten(Layout layout) {
  layout.aten_ops = true;
  return layout;
}

// Runs `body` in fp32 with all replicas of the layout on thread ranks.
inline absl::Status WithReplicas(const std::string& folder, const Layout& layout,
                                 const std::function<absl::Status(steer::Replicas&)>& body) {
  return comm::RunThreadRanks(layout.ranks, [&](comm::Communicator& world) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, layout.tensor_parallel));
    BEARING_ASSIGN_OR_RETURN(const auto reader, sharding::CheckpointReader::Open(folder));
    BEARING_ASSIGN_OR_RETURN(const auto plan,
                             sharding::MakeShardPlan(reader->config(), reader->layout(), layout.tensor_parallel));
    model::DecoderOptions options;
    options.gemm_path = model::GemmPath::kPlain;
    options.residency = layout.residency;
    options.stream_tokens = layout.stream_tokens;
    options.aten_ops = layout.aten_ops;
    BEARING_ASSIGN_OR_RETURN(const auto decoder, model::Decoder::Load(*reader, plan, *grid.tensor_parallel, options));
    BEARING_ASSIGN_OR_RETURN(const auto replicas, steer::Replicas::Make(*decoder, grid));
    return body(*replicas);
  });
}

struct TraceResult {
  at::Tensor residual;  // [n, L + 1, D]
  at::Tensor logits;    // [n, V]
};

// What `bearing trace` computes, from one packed batch. `share_prefix` = false runs every row whole.
inline absl::Status RunTinyTrace(model::Decoder& decoder, const steer::Rows& rows, const model::Intervention& intervention,
                                 bool share_prefix, TraceResult& result) {
  model::PackedBatch batch;
  std::vector<int> segments;
  std::vector<int64_t> read;
  if (share_prefix) {
    steer::RowBatcher(decoder.config(), rows, 1).AppendGroup({0, rows.size()}, intervention, batch, segments, read);
  } else {
    batch.BeginGroup(intervention);
    for (const auto& row : rows) {
      batch.Add(row);
      read.push_back(batch.num_tokens() - 1);
    }
  }
  const int64_t num_layers = decoder.config().num_layers();
  const int64_t n = static_cast<int64_t>(rows.size());
  at::Tensor residual = at::empty({n, num_layers + 1, decoder.config().d_model}, at::kFloat);
  const at::Tensor index = at::tensor(read, at::kLong).to(decoder.device());
  model::RunOptions options;
  options.observe = [&](int64_t layer, const at::Tensor& x) {
    residual.select(1, layer).copy_(layer == num_layers ? x : x.index_select(0, index));
  };
  auto last = decoder.Run(batch, read, options);
  if (!last.ok()) return last.status();
  auto logits = decoder.comm().AllGather(decoder.LocalLogits(*last).t().contiguous());
  if (!logits.ok()) return logits.status();
  if (decoder.comm().rank() == 0) result = {residual, logits->t().contiguous().cpu()};
  return absl::OkStatus();
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_WORKER_TINY_MODEL_H_
