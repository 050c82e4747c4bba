// The JSON of a safetensors header, read event by event: no document is built, so a hostile header costs no more memory than
// its tensors, and duplicate keys are seen. Offsets are checked by the caller.
//
// Private to safetensors.cc.
#ifndef BEARING_SHARDING_SAFETENSORS_SAX_H_
#define BEARING_SHARDING_SAFETENSORS_SAX_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "sharding/dtype.h"

namespace bearing::sharding {

class SafetensorsSax : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::kU8;
    std::vector<int64_t> shape;
    int64_t begin = 0;  // Relative to the data.
    int64_t end = 0;
  };

  explicit SafetensorsSax(std::string_view file_name) : file_name_(file_name) {}

  // Set when an event was refused.
  const absl::Status& status() const { return status_; }
  std::vector<Tensor>& tensors() { return tensors_; }
  std::map<std::string, std::string>& metadata() { return metadata_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a number that is not a 63-bit integer"); }
  bool string(string_t& value) override;
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool start_object(std::size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string& last_token, const nlohmann::detail::exception& error) override;

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  enum class Field { kNone, kDType, kShape, kOffsets };

  bool TopKey(const std::string& name);
  bool TensorKey(const std::string& name);
  bool Refuse(std::string_view what);
  bool Unexpected(std::string_view got);

  std::string file_name_;
  absl::Status status_;
  std::vector<Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::unordered_set<std::string> names_;

  Place place_ = Place::kStart;
  std::string metadata_key_;
  bool in_metadata_ = false;  // The value of the last key of the top is the metadata.
  Tensor tensor_;
  Field field_ = Field::kNone;
  std::optional<DType> dtype_;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  std::vector<int64_t> offsets_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SAFETENSORS_SAX_H_
