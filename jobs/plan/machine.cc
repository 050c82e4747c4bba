#include "jobs/plan/machine.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

// Of bandwidths that a program sees, streaming kernels and rings reach about this.
constexpr double kBandwidthShare = 0.8;
// Attention of short prompts fills a GPU worse than products do.
constexpr double kAttentionShare = 0.5;
// One 400 Gbit/s adapter a GPU.
constexpr double kNetworkBytesPerSecond = 50e9;
constexpr double kDiskBytesPerSecond = 2e9;

// SXM boards, dense products, NVIDIA's datasheets: A100 Tensor Core GPU (80 GB), H100 and H200 Tensor Core GPU.
// float32 is without TF32. NVLink is one direction, half of the sum of both that the sheets name.
struct Datasheet {
  const char* name;
  double bfloat16_flops, float32_flops, memory_bytes_per_s, nvlink_bytes_per_s, memory_gib;
};
constexpr Datasheet kDatasheets[] = {
    {"a100", 312e12, 19.5e12, 2.039e12, 300e9, 80},
    {"h100", 989.4e12, 67e12, 3.35e12, 450e9, 80},
    {"h200", 989.4e12, 67e12, 4.8e12, 450e9, 131},  // 141e9 bytes.
};

double Hops(int64_t n) { return n <= 1 ? 0 : 2.0 * static_cast<double>(std::bit_width(static_cast<uint64_t>(n - 1))); }

double RingShare(int64_t n) { return n <= 1 ? 0 : 2.0 * static_cast<double>(n - 1) / static_cast<double>(n); }

}  // namespace

double Machine::ProductFlopsPerSecond(double tokens) const {
  if (products.empty()) return 0;
  if (tokens <= static_cast<double>(products.front().tokens)) return products.front().flops_per_s;
  for (size_t i = 1; i < products.size(); ++i) {
    const ProductRate& low = products[i - 1];
    const ProductRate& high = products[i];
    if (tokens > static_cast<double>(high.tokens)) continue;
    const double at = std::log(tokens / static_cast<double>(low.tokens)) /
                      std::log(static_cast<double>(high.tokens) / static_cast<double>(low.tokens));
    return std::exp(std::log(low.flops_per_s) * (1 - at) + std::log(high.flops_per_s) * at);
  }
  return products.back().flops_per_s;
}

double Machine::AllReduceSeconds(int64_t n, double bytes) const {
  if (n <= 1) return 0;
  const int64_t g = std::min(n, std::max<int64_t>(1, ranks_per_node));
  const int64_t m = (n + g - 1) / g;
  double seconds = 0;
  if (g > 1) seconds += Hops(g) * link_latency_s + RingShare(g) * bytes / link_bytes_per_s;
  if (m > 1) seconds += Hops(m) * network_latency_s + RingShare(m) * bytes / static_cast<double>(g) / network_bytes_per_s;
  return seconds;
}

std::vector<std::string> MachineProfileNames() {
  std::vector<std::string> names;
  for (const Datasheet& sheet : kDatasheets) names.emplace_back(sheet.name);
  return names;
}

absl::StatusOr<Machine> MachineProfile(std::string_view name, std::string_view dtype, double efficiency) {
  for (const Datasheet& sheet : kDatasheets) {
    if (name != sheet.name) continue;
    Machine machine;
    machine.name = sheet.name;
    machine.is_gpu = true;
    machine.dtype = std::string(dtype);
    const double peak = dtype == "bfloat16" ? sheet.bfloat16_flops : sheet.float32_flops;
    const double memory = sheet.memory_bytes_per_s * kBandwidthShare;
    machine.products = {{1, peak * efficiency}};
    machine.attention_flops_per_s = peak * efficiency * kAttentionShare;
    // One query reads every key and value once: 2 FLOPs for each of their bytes at most.
    machine.decode_attention_flops_per_s = memory;
    machine.elementwise_bytes_per_s = memory;
    machine.memory_bytes_per_s = memory;
    // fp32, read and written five times (maximum, difference, exponential, sum, division).
    machine.vocabulary_elements_per_s = memory / 40;
    machine.edit_elements_per_s = 5e8;
    machine.prepare_bytes_per_s = 20e9;
    machine.hash_bytes_per_s = 1.5e9;
    machine.disk_read_bytes_per_s = kDiskBytesPerSecond;
    machine.disk_write_bytes_per_s = kDiskBytesPerSecond;
    machine.link_latency_s = 5e-6;
    machine.link_bytes_per_s = sheet.nvlink_bytes_per_s * kBandwidthShare;
    machine.network_latency_s = 10e-6;
    machine.network_bytes_per_s = kNetworkBytesPerSecond * kBandwidthShare;
    machine.ranks_per_node = 8;
    machine.memory_bytes_per_rank = static_cast<int64_t>(sheet.memory_gib * kGib);
    machine.process_bytes = static_cast<int64_t>(1.5 * kGib);
    machine.assumed = {
        absl::StrFormat("products reach %.0f %% of %.4g TFLOP/s (%s, dense, datasheet), attention half of that",
                        efficiency * 100, peak / 1e12, machine.dtype),
        absl::StrFormat("bandwidths reach %.0f %%: memory %.4g TB/s, NVLink %.0f GB/s a direction, network %.0f GB/s a rank",
                        kBandwidthShare * 100, sheet.memory_bytes_per_s / 1e12, sheet.nvlink_bytes_per_s / 1e9,
                        kNetworkBytesPerSecond / 1e9),
        "a hop of an all-reduce takes 5 us inside a node and 10 us between nodes",
        "starting a kernel takes no time",
        "disks read and write 2 GB/s a rank, the edit does 0.5 G elements/s and sha256 1.5 GB/s on the host",
        "a rank without a model takes 1.5 GiB (driver context, libraries)"};
    return machine;
  }
  return absl::NotFoundError(Concat("no such profile: ", name, "; there are ", absl::StrJoin(MachineProfileNames(), ", ")));
}

}  // namespace bearing::jobs
