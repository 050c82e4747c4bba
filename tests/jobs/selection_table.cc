#include "tests/jobs/selection_table.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace bearing::jobs {

SelectionTable LoadSelectionTable(const std::string& name) {
  std::ifstream in(std::string(BEARING_SOURCE_DIR) + "/tests/jobs/data/selection_" + name + ".json");
  const nlohmann::json json = nlohmann::json::parse(in);
  SelectionTable table;
  table.num_layers = json.at("num_layers");
  table.selected = {json.at("selected").at("position"), json.at("selected").at("layer")};
  for (const auto& row : json.at("candidates")) {
    Candidate candidate;
    candidate.position = row[0];
    candidate.layer = row[1];
    candidate.norm = candidate.layer == 0 ? 0 : 1;
    candidate.bypass = row[2].get<double>();
    candidate.induce = row[3].get<double>();
    candidate.kl = row[4].get<double>();
    table.num_positions = std::max(table.num_positions, -candidate.position);
    table.candidates.push_back(candidate);
  }
  for (const auto& row : json.at("kept")) table.kept.emplace(row[0], row[1]);
  return table;
}

}  // namespace bearing::jobs
