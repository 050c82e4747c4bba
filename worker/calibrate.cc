#include "worker/calibrate.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/artifacts.h"
#include "sharding/sha256.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "worker/calibrate/disk_rates.h"
#include "worker/calibrate/kernel_rates.h"
#include "worker/device.h"
#include "worker/model/device_memory.h"
#include "worker/model/weight_loader.h"

namespace bearing::worker {
namespace {

// Larger products are not faster, and filling them takes time.
constexpr int64_t kMaxWeightElements = int64_t{24} << 20;
constexpr int64_t kMaxVocabulary = 65536;
constexpr int64_t kSmallMessage = 256;        // Elements.
constexpr int64_t kLargeMessageTokens = 512;  // Of d_model elements each.

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  }
  return "cpu";
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

absl::StatusOr<double> Largest(comm::Communicator& comm, double value) {
  at::Tensor tensor = at::full({1}, value, at::kDouble);
  BEARING_RETURN_IF_ERROR(comm.AllReduce(tensor, comm::ReduceOp::kMax));
  return tensor.item<double>();
}

absl::StatusOr<double> Smallest(comm::Communicator& comm, double value) {
  BEARING_ASSIGN_OR_RETURN(const double negated, Largest(comm, -value));
  return -negated;
}

KernelShapes ShapesOf(const sharding::ModelConfig& config, const sharding::ShardPlan& plan, const CalibrateOptions& options) {
  KernelShapes shapes;
  shapes.d_model = config.d_model;
  shapes.layers = config.num_layers();
  shapes.prefix_tokens = options.prefix_tokens;
  shapes.prompt_tokens = options.prompt_tokens;
  const sharding::AttentionSpec& attention = config.layers.front().attention;
  shapes.head_dim = attention.head_dim;
  shapes.rotary_dim = config.ropes.at(attention.rope).rotary_dim;
  for (const sharding::RankPlan& rank : plan.ranks) {
    shapes.heads = std::max(shapes.heads, rank.heads.size());
    shapes.kv_heads = std::max(shapes.kv_heads, rank.kv_heads.size());
    shapes.columns = std::max({shapes.columns, rank.mlp.size(), rank.expert.size()});
    shapes.vocab = std::max(shapes.vocab, rank.vocab.size());
  }
  shapes.vocab = std::min(shapes.vocab, kMaxVocabulary);
  // A kernel of attention works head by head: fewer heads have the same rate.
  const int64_t room = std::max<int64_t>(1, kMaxWeightElements / shapes.d_model);
  shapes.columns = std::min(shapes.columns, std::max<int64_t>(1, room / 4));
  const int64_t most_heads = std::max<int64_t>(1, room / 4 / shapes.head_dim);
  if (shapes.heads > most_heads) {
    shapes.kv_heads = std::max<int64_t>(1, shapes.kv_heads * most_heads / shapes.heads);
    shapes.heads = most_heads;
  }
  return shapes;
}

// Seconds of one all-reduce: a fixed number of them, since all ranks must take part in each.
absl::StatusOr<double> TimeAllReduce(comm::Communicator& comm, int64_t elements, at::ScalarType type, int times) {
  at::Tensor tensor = at::zeros({elements}, at::device(comm.device()).dtype(type));
  BEARING_RETURN_IF_ERROR(comm.AllReduce(tensor, comm::ReduceOp::kSum));
  model::Synchronize(comm.device());
  BEARING_RETURN_IF_ERROR(comm.Barrier());
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) BEARING_RETURN_IF_ERROR(comm.AllReduce(tensor, comm::ReduceOp::kSum));
  model::Synchronize(comm.device());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return Largest(comm, took.count() / times);
}

// Solves Machine::AllReduceSeconds for the link.
absl::Status MeasureLink(comm::Communicator& comm, int64_t d_model, at::ScalarType dtype, jobs::Machine& machine) {
  const auto n = static_cast<double>(comm.size());
  if (comm.size() == 1) {
    machine.link_latency_s = 2e-6;
    machine.link_bytes_per_s = machine.memory_bytes_per_s / 4;
    machine.assumed.push_back(
        "one rank was measured, so messages were not: 2 us a hop and a quarter of the memory's bandwidth");
  } else {
    const int64_t large = kLargeMessageTokens * d_model;
    BEARING_ASSIGN_OR_RETURN(const double small_seconds, TimeAllReduce(comm, kSmallMessage, at::kFloat, 200));
    BEARING_ASSIGN_OR_RETURN(const double large_seconds, TimeAllReduce(comm, large, dtype, 20));
    const double bytes = static_cast<double>(large * at::elementSize(dtype));
    machine.link_latency_s = small_seconds / (2 * std::ceil(std::log2(n)));
    machine.link_bytes_per_s = 2 * (n - 1) / n * bytes / std::max(large_seconds - small_seconds, small_seconds);
  }
  machine.network_latency_s = machine.link_latency_s;
  machine.network_bytes_per_s = machine.link_bytes_per_s;
  machine.assumed.push_back("links between machines are as fast as between the ranks of this one");
  return absl::OkStatus();
}

absl::Status MeasureKernels(KernelRates& rates, at::ScalarType stored, jobs::Machine& machine) {
  BEARING_ASSIGN_OR_RETURN(machine.memory_bytes_per_s, rates.Memory());
  BEARING_ASSIGN_OR_RETURN(machine.products, rates.Products());
  BEARING_ASSIGN_OR_RETURN(machine.attention_flops_per_s, rates.Attention());
  BEARING_ASSIGN_OR_RETURN(machine.decode_attention_flops_per_s, rates.DecodeAttention());
  BEARING_ASSIGN_OR_RETURN(machine.elementwise_bytes_per_s, rates.Elementwise());
  BEARING_ASSIGN_OR_RETURN(machine.vocabulary_elements_per_s, rates.Vocabulary());
  BEARING_ASSIGN_OR_RETURN(machine.edit_elements_per_s, rates.Edit(stored));
  BEARING_ASSIGN_OR_RETURN(machine.prepare_bytes_per_s, rates.Prepare(stored));
  return absl::OkStatus();
}

// The largest weight file of a folder; empty if it has none.
std::string LargestShard(const std::string& folder) {
  std::string largest;
  uintmax_t most = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".safetensors" || !entry.is_regular_file(error)) continue;
    if (const uintmax_t size = entry.file_size(error); size > most) {
      most = size;
      largest = entry.path().string();
    }
  }
  return largest;
}

absl::Status MeasureFiles(comm::Communicator& comm, const CalibrateOptions& options, jobs::Machine& machine) {
  std::string folder = options.config;
  if (!std::filesystem::is_directory(folder)) folder = std::filesystem::path(folder).parent_path().string();
  absl::StatusOr<ReadRate> read = ReadRate{};
  if (const std::string shard = LargestShard(folder); !shard.empty()) read = MeasureRead(shard, comm.rank(), comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, read.status()));
  BEARING_ASSIGN_OR_RETURN(machine.disk_read_bytes_per_s, Smallest(comm, read->bytes_per_s));
  BEARING_ASSIGN_OR_RETURN(machine.disk_cold_bytes_per_s, Smallest(comm, read->cold_bytes_per_s));
  BEARING_ASSIGN_OR_RETURN(machine.disk_cached_share, Smallest(comm, read->cached_share));
  if (machine.disk_read_bytes_per_s <= 0) {
    machine.disk_read_bytes_per_s = 1e9;
    machine.assumed.push_back("there are no weight files to read: disks read 1 GB/s a rank");
  }
  absl::StatusOr<double> write = 0.0;
  if (!options.write_to.empty()) write = MeasureWrite(options.write_to, comm.rank());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, write.status()));
  BEARING_ASSIGN_OR_RETURN(machine.disk_write_bytes_per_s, Smallest(comm, *write));
  if (machine.disk_write_bytes_per_s <= 0) {
    machine.disk_write_bytes_per_s = 5e8;
    machine.assumed.push_back("writing was not timed: disks write 0.5 GB/s a rank");
  }
  return absl::OkStatus();
}

absl::StatusOr<double> MeasureHash(comm::Communicator& comm) {
  const std::string bytes(size_t{16} << 20, 'x');
  BEARING_ASSIGN_OR_RETURN(const double seconds,
                           TimeOnAllRanks(comm, [&bytes] { sharding::Sha256Hex(bytes).status().IgnoreError(); }));
  return static_cast<double>(bytes.size()) / seconds;
}

// What a rank takes before any model: libraries, buffers, and the tokenizer of rank 0.
absl::StatusOr<int64_t> MeasureProcess(comm::Communicator& comm, const std::string& folder, at::ScalarType dtype) {
  std::unique_ptr<bridge::ChatTokenizer> tokenizer;
  if (comm.rank() == 0) {
    // A folder without a tokenizer is planned too.
    if (auto loaded = bridge::ChatTokenizer::Load(folder); loaded.ok()) tokenizer = *std::move(loaded);
  }
  const at::Tensor x = at::ones({8, 64}, at::kFloat);
  model::Linear(at::ones({64, 64}), at::Tensor(), dtype, model::GemmPath::kPlain).Forward(x.to(dtype));
  BEARING_ASSIGN_OR_RETURN(const double bytes, Largest(comm, static_cast<double>(ResidentBytes())));
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<sharding::ModelConfig> ReadConfig(const std::string& path) {
  if (std::filesystem::is_directory(path)) return sharding::LoadModelConfig(path);
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(path));
  return sharding::ParseModelConfig(text, path);
}

absl::Status Calibrate(comm::Communicator& comm, const CalibrateOptions& options, const std::string& device_name) {
  const absl::StatusOr<sharding::ModelConfig> config = ReadConfig(options.config);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, config.status()));
  const int64_t plan_ranks = options.plan_ranks > 0 ? options.plan_ranks : comm.size();
  const auto plan = sharding::MakeShardPlan(*config, sharding::ParamLayout::FromConfig(*config), plan_ranks);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, plan.status()));
  const at::ScalarType dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  BEARING_ASSIGN_OR_RETURN(const at::ScalarType stored, model::ToScalarType(config->dtype));

  jobs::Machine machine;
  machine.is_gpu = comm.device().is_cuda();
  machine.name = machine.is_gpu ? device_name : ProcessorName();
  machine.measured = true;
  machine.dtype = options.dtype;
  machine.ranks = comm.size();
  machine.ranks_per_node = comm.size();
  machine.threads = at::get_num_threads();
  const absl::StatusOr<int64_t> free = RankMemoryBytes(comm, comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, free.status()));
  BEARING_ASSIGN_OR_RETURN(const double memory, Smallest(comm, static_cast<double>(*free)));
  machine.memory_bytes_per_rank = static_cast<int64_t>(memory);
  BEARING_ASSIGN_OR_RETURN(machine.process_bytes, MeasureProcess(comm, options.config, dtype));

  const KernelShapes shapes = ShapesOf(*config, *plan, options);
  // All ranks take rank 0's choice, as the decoder does.
  std::string path = model::GemmPathName(model::GemmPath::kPlain);
  if (comm.rank() == 0 && !machine.is_gpu) path = model::GemmPathName(model::ChooseGemmPath(dtype));
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(path, 0));
  machine.gemm_path = path;
  KernelRates rates(comm, shapes, dtype, model::GemmPathFromName(path).value_or(model::GemmPath::kPlain));
  BEARING_RETURN_IF_ERROR(MeasureKernels(rates, stored, machine));
  BEARING_RETURN_IF_ERROR(MeasureLink(comm, config->d_model, dtype, machine));
  BEARING_RETURN_IF_ERROR(MeasureFiles(comm, options, machine));
  BEARING_ASSIGN_OR_RETURN(machine.hash_bytes_per_s, MeasureHash(comm));
  if (comm.rank() == 0) std::printf("%s\n", jobs::MachineJson(machine).dump().c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCalibrate(comm::Communicator& comm, const CalibrateOptions& options, const std::string& device_name) {
  try {
    return Calibrate(comm, options, device_name);
  } catch (const std::exception& error) {
    if (comm.size() > 1) comm.Abort(error.what());
    return absl::InternalError(error.what());
  }
}

}  // namespace bearing::worker
