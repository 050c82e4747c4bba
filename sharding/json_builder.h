// A JSON document built from the parser's events, with what the library's own parser lacks: a key that appears twice is seen,
// nesting has a bound (writing and copying a document recurse, so a hostile one would end the stack), and an ordered document
// is built without looking every key up among all before it.
//
// Private to json_text.cc.
#ifndef BEARING_SHARDING_JSON_BUILDER_H_
#define BEARING_SHARDING_JSON_BUILDER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

namespace bearing::sharding {

// No file of a model nests deeper than some ten levels.
inline constexpr size_t kMaxJsonDepth = 64;

// `Json` is nlohmann::json or nlohmann::ordered_json.
template <typename Json>
class JsonBuilder : public nlohmann::json_sax<Json> {
 public:
  using Base = nlohmann::json_sax<Json>;

  Json& document() { return document_; }
  const std::optional<std::string>& key_twice() const { return key_twice_; }
  const std::string& error() const { return error_; }  // Of the parser; empty when the events ended well.
  bool too_deep() const { return too_deep_; }

  bool null() override { return Take(nullptr); }
  bool boolean(bool value) override { return Take(value); }
  bool number_integer(typename Base::number_integer_t value) override { return Take(value); }
  bool number_unsigned(typename Base::number_unsigned_t value) override { return Take(value); }
  bool number_float(typename Base::number_float_t value, const typename Base::string_t&) override { return Take(value); }
  bool string(typename Base::string_t& value) override { return Take(std::move(value)); }
  bool binary(typename Base::binary_t&) override { return false; }  // Not in JSON text.
  bool key(typename Base::string_t& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    error_ = error.what();
    return false;
  }

 private:
  static constexpr bool kOrdered = std::is_same_v<Json, nlohmann::ordered_json>;

  struct Container {
    Json value;
    std::string key;                        // Of an object: that of the value which comes next.
    std::unordered_set<std::string> names;  // Of an ordered object.
  };

  bool Open(Json empty) {
    if (open_.size() == kMaxJsonDepth) {
      too_deep_ = true;
      return false;
    }
    open_.push_back({std::move(empty), {}, {}});
    return true;
  }

  bool Close() {
    Json value = std::move(open_.back().value);
    open_.pop_back();
    return Take(std::move(value));
  }

  template <typename Value>
  bool Take(Value&& value) {
    if (open_.empty()) {
      document_ = std::forward<Value>(value);
      return true;
    }
    Container& container = open_.back();
    if (container.value.is_array()) {
      container.value.push_back(Json(std::forward<Value>(value)));
      return true;
    }
    auto& object = container.value.template get_ref<typename Json::object_t&>();
    bool is_new = true;
    if constexpr (kOrdered) {
      is_new = container.names.insert(container.key).second;
      if (is_new) object.emplace_back(container.key, Json(std::forward<Value>(value)));
    } else {
      is_new = object.emplace(container.key, Json(std::forward<Value>(value))).second;
    }
    if (!is_new) key_twice_ = container.key;
    return is_new;
  }

  Json document_;
  std::vector<Container> open_;
  std::optional<std::string> key_twice_;
  std::string error_;
  bool too_deep_ = false;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_JSON_BUILDER_H_
