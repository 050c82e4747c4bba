// safetensors_check FILE...: one line a file, what our reader sees: a JSON list of [name, dtype, shape, bytes] in the order of
// the data, or "reject". For comparison with the reference implementation.
#include <iostream>
#include <string>

#include "nlohmann/json.hpp"
#include "sharding/safetensors.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const auto header = bearing::sharding::ReadSafetensorsHeader(argv[i]);
    if (!header.ok()) {
      std::cout << "reject\n";
      continue;
    }
    nlohmann::json tensors = nlohmann::json::array();
    for (const bearing::sharding::SafetensorsEntry& entry : header->entries) {
      tensors.push_back({entry.name, std::string(DTypeName(entry.dtype)), entry.shape, entry.num_bytes});
    }
    std::cout << tensors.dump() << "\n";
  }
  return 0;
}
