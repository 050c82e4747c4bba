#include <cmath>
#include <nlohmann/json.hpp>

#include "jobs/plan/machine.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

constexpr char kFormat[] = "bearing-machine/1";

// The numbers by name, in the order of the struct. `needed`: must be above zero.
struct Number {
  const char* name;
  double Machine::*field;
  bool needed;
};
constexpr Number kNumbers[] = {
    {"attention_flops_per_s", &Machine::attention_flops_per_s, true},
    {"decode_attention_flops_per_s", &Machine::decode_attention_flops_per_s, true},
    {"elementwise_bytes_per_s", &Machine::elementwise_bytes_per_s, true},
    {"memory_bytes_per_s", &Machine::memory_bytes_per_s, true},
    {"vocabulary_elements_per_s", &Machine::vocabulary_elements_per_s, true},
    {"edit_elements_per_s", &Machine::edit_elements_per_s, true},
    {"prepare_bytes_per_s", &Machine::prepare_bytes_per_s, true},
    {"hash_bytes_per_s", &Machine::hash_bytes_per_s, true},
    {"disk_read_bytes_per_s", &Machine::disk_read_bytes_per_s, true},
    {"disk_cached_share", &Machine::disk_cached_share, false},
    {"disk_cold_bytes_per_s", &Machine::disk_cold_bytes_per_s, false},
    {"disk_write_bytes_per_s", &Machine::disk_write_bytes_per_s, true},
    {"link_latency_s", &Machine::link_latency_s, false},
    {"link_bytes_per_s", &Machine::link_bytes_per_s, true},
    {"network_latency_s", &Machine::network_latency_s, false},
    {"network_bytes_per_s", &Machine::network_bytes_per_s, true},
};
struct Count {
  const char* name;
  int64_t Machine::*field;
};
constexpr Count kCounts[] = {{"ranks", &Machine::ranks},
                             {"threads", &Machine::threads},
                             {"ranks_per_node", &Machine::ranks_per_node},
                             {"memory_bytes_per_rank", &Machine::memory_bytes_per_rank},
                             {"process_bytes", &Machine::process_bytes}};
struct Text {
  const char* name;
  std::string Machine::*field;
};
constexpr Text kTexts[] = {{"name", &Machine::name}, {"dtype", &Machine::dtype}, {"gemm_path", &Machine::gemm_path}};

absl::Status Bad(std::string_view source, std::string_view key, std::string_view expected) {
  return absl::InvalidArgumentError(Concat("machine file: ", expected, ": file=", source, " key=", key));
}

absl::Status ReadProducts(const nlohmann::json& json, std::string_view source, Machine& machine) {
  const auto bad = [&] { return Bad(source, "products", "expected a list of {tokens, flops_per_s}, tokens rising"); };
  if (!json.is_array() || json.empty()) return bad();
  for (const nlohmann::json& entry : json) {
    if (!entry.is_object() || !entry.contains("tokens") || !entry.contains("flops_per_s")) return bad();
    if (!entry["tokens"].is_number_integer() || !entry["flops_per_s"].is_number()) return bad();
    const ProductRate rate{entry["tokens"].get<int64_t>(), entry["flops_per_s"].get<double>()};
    const int64_t before = machine.products.empty() ? 0 : machine.products.back().tokens;
    if (rate.tokens <= before || !(rate.flops_per_s > 0)) return bad();
    machine.products.push_back(rate);
  }
  return absl::OkStatus();
}

}  // namespace

nlohmann::json MachineJson(const Machine& machine) {
  nlohmann::json json = {{"format", kFormat}, {"measured", machine.measured}, {"is_gpu", machine.is_gpu}};
  for (const Text& text : kTexts) json[text.name] = machine.*text.field;
  for (const Count& count : kCounts) json[count.name] = machine.*count.field;
  for (const Number& number : kNumbers) json[number.name] = machine.*number.field;
  json["products"] = nlohmann::json::array();
  for (const ProductRate& rate : machine.products) {
    json["products"].push_back({{"tokens", rate.tokens}, {"flops_per_s", rate.flops_per_s}});
  }
  json["assumed"] = machine.assumed;
  return json;
}

absl::StatusOr<Machine> ParseMachine(std::string_view text, std::string_view source) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError(Concat("machine file: expected a JSON object: file=", source));
  if (!json.contains("format") || json["format"] != kFormat) return Bad(source, "format", Concat("expected ", kFormat));
  Machine machine;
  for (const auto& [key, field] : {std::pair("measured", &machine.measured), std::pair("is_gpu", &machine.is_gpu)}) {
    if (!json.contains(key) || !json[key].is_boolean()) return Bad(source, key, "expected true or false");
    *field = json[key].get<bool>();
  }
  for (const Text& text_field : kTexts) {
    if (!json.contains(text_field.name) || !json[text_field.name].is_string()) {
      return Bad(source, text_field.name, "expected a text");
    }
    machine.*text_field.field = json[text_field.name].get<std::string>();
  }
  for (const Count& count : kCounts) {
    if (!json.contains(count.name) || !json[count.name].is_number_integer() || json[count.name].get<int64_t>() < 1) {
      return Bad(source, count.name, "expected a positive whole number");
    }
    machine.*count.field = json[count.name].get<int64_t>();
  }
  for (const Number& number : kNumbers) {
    const bool is_number = json.contains(number.name) && json[number.name].is_number();
    if (!is_number || json[number.name].get<double>() < 0 || (number.needed && json[number.name].get<double>() <= 0)) {
      return Bad(source, number.name, number.needed ? "expected a positive number" : "expected a number, at least 0");
    }
    machine.*number.field = json[number.name].get<double>();
  }
  BEARING_RETURN_IF_ERROR(ReadProducts(json.value("products", nlohmann::json()), source, machine));
  if (const auto assumed = json.find("assumed"); assumed != json.end() && assumed->is_array()) {
    for (const nlohmann::json& line : *assumed) {
      if (line.is_string()) machine.assumed.push_back(line.get<std::string>());
    }
  }
  return machine;
}

}  // namespace bearing::jobs
