// The three texts that change when a tied model gets an unembedding of its own: the header of a single file, the index of a
// sharded checkpoint, and config.json. Everything that need not change keeps its bytes or its order.
//
// Pure functions, thread-safe.
#ifndef BEARING_SHARDING_UNTIE_H_
#define BEARING_SHARDING_UNTIE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sharding/safetensors.h"

namespace bearing::sharding {

// Header JSON (padded) with one tensor more, whose data begins at `begin` after the data that is there. `tensor` gives name,
// dtype, shape and num_bytes. `raw_json` is a header that holds at least one tensor.
std::string AppendTensorToHeader(std::string_view raw_json, const SafetensorsEntry& tensor, int64_t begin);

// Header JSON (padded) of a new shard with this one tensor.
std::string HeaderOfOneTensor(const SafetensorsEntry& tensor);

// The index with `tensor` in `file_name`, and its totals raised.
absl::StatusOr<std::string> AddToIndex(std::string_view index_text, std::string_view source, const SafetensorsEntry& tensor,
                                       std::string_view file_name);

// config.json with "tie_word_embeddings": false.
absl::StatusOr<std::string> UntieConfig(std::string_view config_text, std::string_view source);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_UNTIE_H_
