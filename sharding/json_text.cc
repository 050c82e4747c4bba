#include "sharding/json_text.h"

#include <cmath>
#include <utility>

#include "sharding/concat.h"
#include "sharding/json_builder.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// What a parser says, which quotes the text: as one line of ASCII, and not as long as the text.
std::string OneLine(std::string_view reason) {
  constexpr size_t kLongest = 300;
  std::string line;
  for (const char c : reason) {
    if (line.size() > kLongest) return Concat(line.substr(0, kLongest - 3), "...");
    if (c >= ' ' && c < 0x7f) {
      line += c;
    } else {
      absl::StrAppend(&line, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
  }
  return line;
}

template <typename Json>
absl::StatusOr<Json> ParseObject(std::string_view text, std::string_view source) {
  // The parser takes a zero byte for the end of the text.
  const size_t zero = text.find('\0');
  if (zero != std::string_view::npos) {
    return absl::InvalidArgumentError(Concat("not valid JSON: zero byte: file=", source, " byte=", zero));
  }
  JsonBuilder<Json> builder;
  if (!Json::sax_parse(text, &builder)) {
    if (builder.key_twice()) {
      return absl::InvalidArgumentError(Concat("key appears twice: file=", source, " key=", Escaped(*builder.key_twice())));
    }
    if (builder.too_deep()) {
      return absl::InvalidArgumentError(Concat("JSON is nested deeper than ", kMaxJsonDepth, " levels: file=", source));
    }
    return absl::InvalidArgumentError(Concat("not valid JSON: file=", source, " reason=", OneLine(builder.error())));
  }
  if (!builder.document().is_object()) return absl::InvalidArgumentError(Concat("not a JSON object: file=", source));
  return std::move(builder.document());
}

// A value as text for a message; bytes that are not UTF-8 cannot stand in a parsed document.
std::string Shown(const nlohmann::json& value) {
  const std::string text = value.dump();
  return text.size() <= 80 ? text : Concat(text.substr(0, 77), "...");
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view source) {
  return ParseObject<nlohmann::json>(text, source);
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJsonObject(std::string_view text, std::string_view source) {
  return ParseObject<nlohmann::ordered_json>(text, source);
}

JsonFields::JsonFields(const nlohmann::json& object, std::string_view source, std::string prefix)
    : object_(&object), source_(source), prefix_(std::move(prefix)) {}

bool JsonFields::IsNull(std::string_view key) const {
  const auto found = object_->find(key);
  return found != object_->end() && found->is_null();
}

const nlohmann::json* JsonFields::Find(std::string_view key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

absl::Status JsonFields::Invalid(std::string_view key, std::string_view what) const {
  const nlohmann::json* value = Find(key);
  return absl::InvalidArgumentError(Concat("bad value: ", what, " file=", source_, " key=", prefix_, key,
                                           value ? " value=" : "", value ? Shown(*value) : ""));
}

absl::Status JsonFields::Unsupported(std::string_view key, std::string_view what) const {
  const nlohmann::json* value = Find(key);
  return absl::UnimplementedError(Concat("not supported: ", what, " file=", source_, " key=", prefix_, key,
                                         value ? " value=" : "", value ? Shown(*value) : ""));
}

absl::StatusOr<int64_t> JsonFields::Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Invalid(key, "key is missing");
  }
  const bool fits =
      value->is_number_unsigned() ? value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX) : value->is_number_integer();
  const int64_t number = fits ? value->get<int64_t>() : 0;
  if (!fits || number < min || number > max) {
    return Invalid(key, Concat("want an integer from ", min, " to ", max));
  }
  return number;
}

absl::StatusOr<double> JsonFields::Number(std::string_view key, std::optional<double> fallback) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Invalid(key, "key is missing");
  }
  if (!value->is_number() || !std::isfinite(value->get<double>())) return Invalid(key, "want a number");
  return value->get<double>();
}

absl::StatusOr<bool> JsonFields::Bool(std::string_view key, std::optional<bool> fallback) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Invalid(key, "key is missing");
  }
  if (!value->is_boolean()) return Invalid(key, "want true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonFields::String(std::string_view key, std::optional<std::string> fallback) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return Invalid(key, "key is missing");
  }
  if (!value->is_string()) return Invalid(key, "want a string");
  return value->get<std::string>();
}

absl::StatusOr<std::optional<JsonFields>> JsonFields::Object(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::optional<JsonFields>();
  if (!value->is_object()) return Invalid(key, "want an object");
  return std::optional<JsonFields>(JsonFields(*value, source_, Concat(prefix_, key, ".")));
}

}  // namespace bearing::sharding
