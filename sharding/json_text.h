// JSON files of a model folder: parsed with duplicate keys refused, and read key by key with checks.
//
// JsonFields borrows the document: it must outlive it. Thread-safe for reading.
#ifndef BEARING_SHARDING_JSON_TEXT_H_
#define BEARING_SHARDING_JSON_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bearing::sharding {

// An object. InvalidArgument naming `source` for bad JSON, a duplicate key, nesting deeper than kMaxJsonDepth (json_builder.h)
// or a document that is not an object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view source);

// The same, keeping the order of the keys.
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJsonObject(std::string_view text, std::string_view source);

// Typed access to one object. Errors are InvalidArgument and name the key and the file. A null value counts as absent.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string_view source, std::string prefix = "");

  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // There, and null.
  bool IsNull(std::string_view key) const;

  // nullptr when absent or null.
  const nlohmann::json* Find(std::string_view key) const;

  // An integer in [min, max]. Without `fallback` the key must be there.
  absl::StatusOr<int64_t> Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback = {}) const;

  // A finite number.
  absl::StatusOr<double> Number(std::string_view key, std::optional<double> fallback = {}) const;
  absl::StatusOr<bool> Bool(std::string_view key, std::optional<bool> fallback = {}) const;
  absl::StatusOr<std::string> String(std::string_view key, std::optional<std::string> fallback = {}) const;

  // The object under `key`, whose keys are named "key.x" in messages; nullopt when absent.
  absl::StatusOr<std::optional<JsonFields>> Object(std::string_view key) const;

  absl::Status Invalid(std::string_view key, std::string_view what) const;

  // Unimplemented, naming the key and its value.
  absl::Status Unsupported(std::string_view key, std::string_view what) const;

 private:
  const nlohmann::json* object_;
  std::string source_;
  std::string prefix_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_JSON_TEXT_H_
