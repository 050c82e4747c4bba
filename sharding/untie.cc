#include "sharding/untie.h"

#include "nlohmann/json.hpp"
#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

nlohmann::ordered_json Describe(const SafetensorsEntry& tensor, int64_t begin) {
  nlohmann::ordered_json entry;
  entry["dtype"] = std::string(DTypeName(tensor.dtype));
  entry["shape"] = tensor.shape;
  entry["data_offsets"] = {begin, begin + tensor.num_bytes};
  return entry;
}

// Text of a JSON file as the Hugging Face tools write it.
std::string FileText(const nlohmann::ordered_json& document) { return document.dump(2) + "\n"; }

// Adds to an integer that may be missing, and then stays so.
void AddTo(nlohmann::ordered_json& object, const char* key, int64_t amount) {
  const auto value = object.find(key);
  if (value != object.end() && value->is_number_integer()) *value = value->get<int64_t>() + amount;
}

}  // namespace

std::string AppendTensorToHeader(std::string_view raw_json, const SafetensorsEntry& tensor, int64_t begin) {
  const std::string_view open = raw_json.substr(0, raw_json.rfind('}'));
  const std::string name = nlohmann::json(tensor.name).dump();
  return PadSafetensorsHeader(Concat(open, ",", name, ":", Describe(tensor, begin).dump(), "}"));
}

std::string HeaderOfOneTensor(const SafetensorsEntry& tensor) {
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";
  header[tensor.name] = Describe(tensor, 0);
  return PadSafetensorsHeader(header.dump());
}

absl::StatusOr<std::string> AddToIndex(std::string_view index_text, std::string_view source, const SafetensorsEntry& tensor,
                                       std::string_view file_name) {
  BEARING_ASSIGN_OR_RETURN(nlohmann::ordered_json index, ParseOrderedJsonObject(index_text, source));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object()) {
    return absl::DataLossError(Concat("index has no weight_map: file=", source));
  }
  (*weight_map)[tensor.name] = std::string(file_name);
  const auto metadata = index.find("metadata");
  if (metadata != index.end() && metadata->is_object()) {
    AddTo(*metadata, "total_size", tensor.num_bytes);
    AddTo(*metadata, "total_parameters", tensor.num_bytes / DTypeSize(tensor.dtype));
  }
  return FileText(index);
}

absl::StatusOr<std::string> UntieConfig(std::string_view config_text, std::string_view source) {
  BEARING_ASSIGN_OR_RETURN(nlohmann::ordered_json config, ParseOrderedJsonObject(config_text, source));
  config["tie_word_embeddings"] = false;
  // The text model of a wrapper says it a second time.
  const auto text = config.find("text_config");
  if (text != config.end() && text->is_object()) (*text)["tie_word_embeddings"] = false;
  return FileText(config);
}

}  // namespace bearing::sharding
