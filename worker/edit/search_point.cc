#include "worker/edit/search_point.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& path, std::string_view field, std::string_view want) {
  return absl::InvalidArgumentError(Concat("not a file of `bearing search`: file=", path, " field=", field, " want=", want));
}

absl::StatusOr<json> ReadDocument(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(Concat("no such file: file=", path));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || document.value("format", json()) != "bearing-search/1") {
    return Bad(path, "format", "bearing-search/1");
  }
  return document;
}

absl::StatusOr<double> NumberAt(const std::string& path, const json& point, const char* key) {
  const auto found = point.find(key);
  if (found == point.end() || !found->is_number() || !std::isfinite(found->get<double>())) {
    return Bad(path, Concat("points[].", key), "a number");
  }
  return found->get<double>();
}

}  // namespace

absl::StatusOr<SearchPoint> ReadSearchPoint(const std::string& path, int64_t index, EditSpec* spec) {
  BEARING_ASSIGN_OR_RETURN(const json document, ReadDocument(path));
  const json points = document.value("points", json());
  if (!points.is_array() || points.empty()) return Bad(path, "points", "a list");
  if (index < 0 || index >= static_cast<int64_t>(points.size())) {
    return absl::InvalidArgumentError(
        Concat("--point: there is no such point: file=", path, " point=", index, " points=", points.size()));
  }
  const json& point = points[static_cast<size_t>(index)];
  if (!point.is_object()) return Bad(path, "points[]", "an object");
  BEARING_ASSIGN_OR_RETURN(spec->components[sharding::Component::kEmbedding], NumberAt(path, point, "embedding"));
  BEARING_ASSIGN_OR_RETURN(spec->components[sharding::Component::kAttention], NumberAt(path, point, "attention"));
  BEARING_ASSIGN_OR_RETURN(spec->components[sharding::Component::kMlp], NumberAt(path, point, "mlp"));
  const json layers = point.value("layer_strengths", json());
  if (!layers.is_array() || layers.empty()) return Bad(path, "points[].layer_strengths", "a list of numbers");
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (!layers[layer].is_number()) return Bad(path, "points[].layer_strengths", "a list of numbers");
    spec->layers[static_cast<int64_t>(layer)] = layers[layer].get<double>();
  }

  const json directions = document.value("directions", json::object());
  const std::string name = directions.is_object() ? directions.value("file", "") : "";
  if (name.empty() || name.find('/') != std::string::npos) return Bad(path, "directions.file", "a name");
  const std::string beside = (std::filesystem::path(path).parent_path() / name).string();
  SearchPoint result;
  BEARING_ASSIGN_OR_RETURN(result.input, ReadDirectionInput(beside));
  if (result.input.sha256 != directions.value("sha256", "") || result.input.directions.size() != points.size()) {
    return absl::DataLossError(Concat("the directions are not those of this search: file=", beside, " search=", path));
  }
  result.input.directions = {result.input.directions[static_cast<size_t>(index)]};
  spec->directions = result.input.directions;
  BEARING_ASSIGN_OR_RETURN(result.input.sha256, sharding::Sha256OfFile(path));
  result.input.metadata = {{"search_point", Concat(index)}};
  for (const char* const key : {"trial", "layer", "position", "projected", "kl", "refusals"}) {
    if (point.contains(key)) result.input.metadata[key] = point[key].dump();
  }
  if (document.contains("concept") && document["concept"].is_string()) result.input.metadata["concept"] = document["concept"];
  if (document.contains("model_digest") && document["model_digest"].is_string()) result.model_digest = document["model_digest"];
  return result;
}

}  // namespace bearing::edit
