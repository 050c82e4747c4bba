#include "sharding/rewritten_text.h"

#include "absl/strings/str_join.h"
#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// Text of a JSON file as the Hugging Face tools write it.
std::string FileText(const nlohmann::ordered_json& document) { return document.dump(2) + "\n"; }

// Adds to an integer that may be missing, and then stays so.
void AddTo(nlohmann::ordered_json& object, const char* key, int64_t amount) {
  const auto value = object.find(key);
  if (value != object.end() && value->is_number_integer()) *value = value->get<int64_t>() + amount;
}

void SetKeys(nlohmann::ordered_json& object, const std::map<std::string, nlohmann::json>& keys, bool only_present) {
  for (const auto& [key, value] : keys) {
    // The text model's own default may be a tie.
    if (only_present && !object.contains(key) && key != "tie_word_embeddings") continue;
    if (value.is_null()) {
      object.erase(key);
    } else {
      object[key] = value;
    }
  }
}

}  // namespace

std::string HeaderOf(absl::Span<const OutputTensor> tensors, const std::map<std::string, std::string>& metadata) {
  // Written by hand: a JSON object that keeps its order looks every key up among all before it.
  std::string json = "{";
  if (!metadata.empty()) absl::StrAppend(&json, "\"__metadata__\":", nlohmann::json(metadata).dump());
  int64_t begin = 0;
  for (const OutputTensor& tensor : tensors) {
    absl::StrAppend(&json, json.size() > 1 ? "," : "", nlohmann::json(tensor.name).dump(), ":{\"dtype\":\"",
                    AsAbsl(DTypeName(tensor.dtype)), "\",\"shape\":[", absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                    begin, ",", begin + tensor.num_bytes, "]}");
    begin += tensor.num_bytes;
  }
  json += "}";
  return PadSafetensorsHeader(std::move(json));
}

absl::StatusOr<std::string> RewriteIndex(std::string_view index_text, std::string_view source, const IndexChanges& changes) {
  BEARING_ASSIGN_OR_RETURN(nlohmann::ordered_json index, ParseOrderedJsonObject(index_text, source));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object()) {
    return absl::DataLossError(Concat("index has no weight_map: file=", source));
  }
  int64_t bytes = 0;
  int64_t elements = 0;
  for (const auto& [tensor, num_bytes] : changes.removed) {
    weight_map->erase(tensor);
    bytes -= num_bytes;
  }
  for (const auto& [tensor, added] : changes.added) {
    (*weight_map)[tensor] = added.file;
    bytes += added.num_bytes;
    elements += added.num_bytes / added.element_bytes;
  }
  const auto metadata = index.find("metadata");
  if (metadata != index.end() && metadata->is_object()) {
    AddTo(*metadata, "total_size", bytes);
    // What a removed tensor stood for is in the one that replaces it.
    if (changes.removed.empty()) AddTo(*metadata, "total_parameters", elements);
  }
  return FileText(index);
}

absl::StatusOr<std::string> RewriteConfig(std::string_view config_text, std::string_view source,
                                          const std::map<std::string, nlohmann::json>& keys) {
  BEARING_ASSIGN_OR_RETURN(nlohmann::ordered_json config, ParseOrderedJsonObject(config_text, source));
  SetKeys(config, keys, /*only_present=*/false);
  // The text model of a wrapper may say it a second time.
  const auto text = config.find("text_config");
  if (text != config.end() && text->is_object()) SetKeys(*text, keys, /*only_present=*/true);
  return FileText(config);
}

}  // namespace bearing::sharding
