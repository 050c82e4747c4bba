// The texts of a checkpoint that change when its copy has other tensors: a shard's header, the index, config.json. Of the last
// two, everything that need not change keeps its order.
//
// Pure functions, thread-safe.
#ifndef BEARING_SHARDING_REWRITTEN_TEXT_H_
#define BEARING_SHARDING_REWRITTEN_TEXT_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "sharding/copy_plan.h"

namespace bearing::sharding {

// Header JSON (padded) of tensors whose data follow each other.
std::string HeaderOf(absl::Span<const OutputTensor> tensors, const std::map<std::string, std::string>& metadata);

struct IndexChanges {
  struct Added {
    std::string file;
    int64_t num_bytes = 0;
    int64_t element_bytes = 1;
  };
  std::map<std::string, int64_t> removed;  // Tensor to its bytes.
  std::map<std::string, Added> added;
  bool empty() const { return removed.empty() && added.empty(); }
};

// The index with these changes, and its totals brought up to date.
absl::StatusOr<std::string> RewriteIndex(std::string_view index_text, std::string_view source, const IndexChanges& changes);

// config.json with these keys set (null: removed), and in text_config those of them that it has.
absl::StatusOr<std::string> RewriteConfig(std::string_view config_text, std::string_view source,
                                          const std::map<std::string, nlohmann::json>& keys);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_REWRITTEN_TEXT_H_
