// How fast a rank is: measured on this machine (`bearing-worker calibrate`), or taken from a datasheet.
//
// As JSON (machine_json.cc) it is what `--save-machine` writes and `--machine` reads: the fields below by name.
#ifndef BEARING_JOBS_PLAN_MACHINE_H_
#define BEARING_JOBS_PLAN_MACHINE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

// Rate of products with the weights of a block on so many tokens at once.
struct ProductRate {
  int64_t tokens = 1;
  double flops_per_s = 0;
};

struct Machine {
  std::string name;                 // "h100", or the processor's.
  bool measured = false;            // false: published peaks times an assumed efficiency.
  bool is_gpu = false;              // Edits then work in the host's memory, not in the ranks'.
  std::string dtype;                // Of the products that were timed: "float32" or "bfloat16".
  int64_t ranks = 1;                // That were measured together.
  int64_t threads = 1;              // Of each.
  std::string gemm_path = "plain";  // Decides what a weight takes in memory (worker/model/linear.h).

  std::vector<ProductRate> products;        // By rising tokens; at least one.
  double attention_flops_per_s = 0;         // Prompts: 4 FLOPs a pair and head element.
  double decode_attention_flops_per_s = 0;  // One query a row.
  double elementwise_bytes_per_s = 0;       // Norms, rotation, activation, additions: bytes they read and write.
  double memory_bytes_per_s = 0;
  double vocabulary_elements_per_s = 0;  // Softmax of a row of logits.
  double edit_elements_per_s = 0;        // W - r (r^T W).
  double prepare_bytes_per_s = 0;        // Weights as stored to weights as multiplied with.
  double hash_bytes_per_s = 0;           // sha256.

  double disk_read_bytes_per_s = 0;   // Of the model's files as they are now.
  double disk_cached_share = 0;       // Share of them that was in the page cache when it was measured; 0 when unknown.
  double disk_cold_bytes_per_s = 0;   // The same not from the page cache; 0 = not known.
  double disk_write_bytes_per_s = 0;  // Synced.

  // All-reduce inside a node, and between nodes. See AllReduceSeconds.
  double link_latency_s = 0;
  double link_bytes_per_s = 0;
  double network_latency_s = 0;
  double network_bytes_per_s = 0;
  int64_t ranks_per_node = 1;

  int64_t memory_bytes_per_rank = 0;
  int64_t process_bytes = 0;         // Of a rank that holds no model.
  std::vector<std::string> assumed;  // In words.

  // FLOP/s of products on `tokens` tokens, between the measured counts by interpolation of logarithms.
  double ProductFlopsPerSecond(double tokens) const;

  // Of `bytes` over n ranks, g = min(n, ranks_per_node) of them a node, m = ceil(n / g) nodes: inside the nodes
  //   2 ceil(log2 g) link_latency + 2 (g-1)/g bytes / link_bytes_per_s, and between them
  //   2 ceil(log2 m) network_latency + 2 (m-1)/m bytes/g / network_bytes_per_s.
  double AllReduceSeconds(int64_t n, double bytes) const;

  double disk_bytes_per_s_cold() const { return disk_cold_bytes_per_s > 0 ? disk_cold_bytes_per_s : disk_read_bytes_per_s; }
};

// InvalidArgument naming a key that is missing, of the wrong type, or not positive where it must be.
absl::StatusOr<Machine> ParseMachine(std::string_view json, std::string_view source);
nlohmann::json MachineJson(const Machine& machine);

// Names of the profiles: "a100", "h100", "h200".
std::vector<std::string> MachineProfileNames();

// A GPU by its datasheet; `efficiency` is the share of the peak FLOP/s that products reach. NotFound naming the profiles.
absl::StatusOr<Machine> MachineProfile(std::string_view name, std::string_view dtype, double efficiency);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_MACHINE_H_
