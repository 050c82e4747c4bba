// The reader of model.safetensors.index.json, and its rewriting.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "sharding/checkpoint_index.h"
#include "sharding/rewritten_text.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bearing::sharding;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto index = ParseCheckpointIndex(text, "the-index");
  if (!index.ok()) {
    BEARING_REQUIRE(index.status().code() == absl::StatusCode::kDataLoss);
    BEARING_REQUIRE(index.status().message().find("the-index") != std::string::npos);
    return 0;
  }
  BEARING_REQUIRE(index->is_sharded && !index->weight_map.empty());
  BEARING_REQUIRE(std::is_sorted(index->files.begin(), index->files.end()));
  for (const auto& [tensor, file] : index->weight_map) {
    // Never a file of another folder.
    BEARING_REQUIRE(file.find('/') == std::string::npos && file.find('\0') == std::string::npos && file[0] != '.');
    BEARING_REQUIRE(std::binary_search(index->files.begin(), index->files.end(), file));
  }
  IndexChanges changes;
  changes.removed[index->weight_map.begin()->first] = 8;
  changes.added["new.tensor"] = {.file = "new.safetensors", .num_bytes = 16, .element_bytes = 2};
  const auto rewritten = RewriteIndex(text, "the-index", changes);
  BEARING_REQUIRE(rewritten.ok());
  const auto again = ParseCheckpointIndex(*rewritten, "rewritten");
  BEARING_REQUIRE(again.ok());
  auto want = index->weight_map;
  want.erase(want.begin());
  want["new.tensor"] = "new.safetensors";
  BEARING_REQUIRE(again->weight_map == want);
  return 0;
}
