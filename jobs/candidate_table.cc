#include "jobs/candidate_table.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_format.h"
#include "jobs/artifacts.h"
#include "jobs/mean_grid.h"
#include "sharding/concat.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

namespace fs = std::filesystem;

absl::Status BadTable(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(Concat(what, ": file=", path));
}

// Python writes NaN and Infinity, which JSON does not have: null. Only outside of texts.
std::string WithoutNan(const std::string& text) {
  std::string out;
  bool in_text = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"' && (i == 0 || text[i - 1] != '\\')) in_text = !in_text;
    bool replaced = false;
    for (const char* word : {"NaN", "-Infinity", "Infinity"}) {
      if (in_text || text.compare(i, std::string_view(word).size(), word) != 0) continue;
      out += "null";
      i += std::string_view(word).size() - 1;
      replaced = true;
      break;
    }
    if (!replaced) out += text[i];
  }
  return out;
}

// Reads the fields of one entry and remembers the first that is not as it should be.
class Entry {
 public:
  Entry(const nlohmann::json& json, size_t index) : json_(json), index_(index) {}

  int Integer(const char* key) {
    if (const auto found = Find(key); found != nullptr && found->is_number_integer()) return found->get<int>();
    return Wrong<int>(key, "an integer");
  }

  // null = `none`.
  std::optional<double> Number(const char* key, std::optional<double> none) {
    const nlohmann::json* found = Find(key);
    if (found != nullptr && found->is_null()) return none;
    if (found != nullptr && found->is_number()) return found->get<double>();
    return Wrong<double>(key, "a number");
  }

  const std::string& error() const { return error_; }

 private:
  const nlohmann::json* Find(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }

  template <typename T>
  T Wrong(const char* key, const char* expected) {
    if (error_.empty()) error_ = Concat("entry ", index_, " has no ", key, " that is ", expected);
    return T();
  }

  const nlohmann::json& json_;
  size_t index_;
  std::string error_;
};

absl::StatusOr<CandidateTable> ReadReference(const nlohmann::json& list, int64_t num_layers, const std::string& path) {
  if (num_layers <= 0) {
    return absl::InvalidArgumentError(
        Concat("this table does not say how many layers the model has: give --num-layers: file=", path));
  }
  CandidateTable table;
  table.rule.num_layers = num_layers;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (size_t i = 0; i < list.size(); ++i) {
    Entry entry(list[i], i);
    Candidate candidate;
    candidate.position = entry.Integer("position");
    candidate.layer = entry.Integer("layer");
    candidate.norm = 1;  // The reference scores every candidate.
    candidate.bypass = entry.Number("refusal_score", kNan);
    candidate.induce = entry.Number("steering_score", kNan);
    candidate.kl = entry.Number("kl_div_score", kNan);
    if (!entry.error().empty()) return BadTable(path, entry.error());
    if (candidate.layer < 0 || candidate.layer >= num_layers || candidate.position >= 0) {
      return BadTable(path, Concat("entry ", i, " is of layer ", candidate.layer, ", position ", candidate.position,
                                   ": of a model with ", num_layers, " layers (--num-layers)"));
    }
    table.candidates.push_back(candidate);
  }
  return table;
}

absl::StatusOr<CandidateTable> ReadOwn(const nlohmann::json& document, const std::string& path) {
  CandidateTable table;
  const auto found = document.find("candidates");
  if (found == document.end() || !found->is_array()) return BadTable(path, "no list of candidates");
  for (size_t i = 0; i < found->size(); ++i) {
    Entry entry((*found)[i], i);
    Candidate candidate;
    candidate.position = entry.Integer("position");
    candidate.layer = entry.Integer("layer");
    candidate.norm = entry.Number("norm", 0.0).value_or(0.0);
    candidate.bypass = entry.Number("bypass", std::nullopt);
    candidate.induce = entry.Number("induce", std::nullopt);
    candidate.kl = entry.Number("kl", std::nullopt);
    if (!entry.error().empty()) return BadTable(path, entry.error());
    table.candidates.push_back(candidate);
  }
  try {
    table.rule.num_layers = document.at("num_layers").get<int64_t>();
    table.rule.kl_max = document.at("rule").at("kl_max").get<double>();
    table.rule.induce_min = document.at("rule").at("induce_min").get<double>();
    table.rule.prune_layers = document.at("rule").at("prune_layers").get<double>();
  } catch (const nlohmann::json::exception&) {
    return BadTable(path, "num_layers and rule (kl_max, induce_min, prune_layers) must be there, as numbers");
  }
  table.folder = fs::path(path).parent_path().string();
  return table;
}

// What the direction of the run says of itself, without the scores of its own candidate.
void TakeMetadata(CandidateTable& table) {
  const auto header = sharding::ReadSafetensorsHeader((fs::path(table.folder) / "direction.safetensors").string());
  if (!header.ok()) return;
  for (const auto& [key, value] : header->metadata) {
    if (key == "concept" || key == "model_digest") table.direction_metadata[key] = value;
  }
}

}  // namespace

absl::StatusOr<CandidateTable> LoadCandidateTable(const std::string& path, int64_t num_layers) {
  std::string file = path;
  if (fs::is_directory(path)) file = (fs::path(path) / "candidates.json").string();
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  const nlohmann::json document = nlohmann::json::parse(WithoutNan(text), nullptr, /*allow_exceptions=*/false);
  if (document.is_array()) return ReadReference(document, num_layers, file);
  if (!document.is_object()) {
    return BadTable(file, "neither candidates.json of a job nor direction_evaluations.json of the reference implementation");
  }
  BEARING_ASSIGN_OR_RETURN(CandidateTable table, ReadOwn(document, file));
  TakeMetadata(table);
  return table;
}

absl::Status WriteDirectionOf(const CandidateTable& table, const Candidate& candidate, const std::string& path) {
  if (table.folder.empty()) {
    return absl::FailedPreconditionError("the table belongs to no job of Bearing: there are no means to take a direction from");
  }
  if (fs::exists(path)) return absl::AlreadyExistsError(Concat("the file is there already: file=", path));
  const std::string means = (fs::path(table.folder) / "means.safetensors").string();
  BEARING_ASSIGN_OR_RETURN(const MeanGrid grid, MeanGrid::Open(means, "mean_difference"));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> difference, grid.Row(candidate.position, candidate.layer));
  double squares = 0;
  for (const double v : difference) squares += v * v;
  if (!(squares > 0)) return absl::DataLossError(Concat("the mean difference is zero: file=", means));
  const double norm = std::sqrt(squares);
  std::vector<float> unit, raw;
  for (const double v : difference) {
    unit.push_back(static_cast<float>(v / norm));
    raw.push_back(static_cast<float>(v));
  }
  std::map<std::string, std::string> metadata = table.direction_metadata;
  metadata["layer"] = Concat(candidate.layer);
  metadata["position"] = Concat(candidate.position);
  metadata["bypass"] = absl::StrFormat("%.9g", *candidate.bypass);
  metadata["induce"] = absl::StrFormat("%.9g", *candidate.induce);
  metadata["kl"] = absl::StrFormat("%.9g", *candidate.kl);
  return sharding::WriteSafetensors(path,
                                    {{"direction", sharding::DType::kF32, {grid.d_model()}, unit.data()},
                                     {"mean_difference", sharding::DType::kF32, {grid.d_model()}, raw.data()}},
                                    metadata);
}

}  // namespace bearing::jobs
