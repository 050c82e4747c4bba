#include "sharding/safetensors_sax.h"

#include <array>
#include <limits>
#include <utility>

#include "sharding/concat.h"
#include "sharding/safetensors.h"

namespace bearing::sharding {
namespace {

constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxAxes = 64;

// Types that the format defines and this reader lacks: the file is sound, the program is not able.
constexpr std::array<std::string_view, 7> kUnsupportedDTypes = {"F4",          "F6_E2M3",     "F6_E3M2", "F8_E8M0",
                                                                "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};

}  // namespace

bool SafetensorsSax::number_unsigned(number_unsigned_t value) {
  if (place_ != Place::kShape && place_ != Place::kOffsets) return Unexpected("a number");
  if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) {
    return Unexpected("a number that is not a 63-bit integer");
  }
  if (place_ == Place::kShape) {
    if (tensor_.shape.size() == kMaxAxes) return Refuse(Concat("shape has more than ", kMaxAxes, " axes"));
    tensor_.shape.push_back(static_cast<int64_t>(value));
  } else {
    if (offsets_.size() == 2) return Refuse("data_offsets has more than two numbers");
    offsets_.push_back(static_cast<int64_t>(value));
  }
  return true;
}

bool SafetensorsSax::string(string_t& value) {
  if (place_ == Place::kMetadata) {
    metadata_.emplace(std::move(metadata_key_), value);
    return true;
  }
  if (place_ != Place::kTensor || field_ != Field::kDType) return Unexpected("a string");
  dtype_ = DTypeFromName(value);
  if (dtype_) return true;
  for (const std::string_view name : kUnsupportedDTypes) {
    if (value == name) {
      status_ = absl::UnimplementedError(
          Concat("dtype is not supported: file=", file_name_, " tensor=", Escaped(tensor_.name), " dtype=", value));
      return false;
    }
  }
  return Refuse(Concat("dtype is unknown: dtype=", Escaped(value.substr(0, 64))));
}

bool SafetensorsSax::start_object(std::size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kTop;
    return true;
  }
  if (place_ != Place::kTop) return Unexpected("an object");
  place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
  return true;
}

bool SafetensorsSax::key(string_t& name) {
  if (place_ == Place::kTop) return TopKey(name);
  if (place_ == Place::kTensor) return TensorKey(name);
  if (metadata_.contains(name)) {
    return Refuse(Concat("key appears twice in __metadata__: key=", Escaped(name)));
  }
  metadata_key_ = name;
  return true;
}

bool SafetensorsSax::TopKey(const std::string& name) {
  tensor_ = Tensor{};
  tensor_.name = name.substr(0, kMaxNameBytes);
  if (name.size() > kMaxNameBytes) return Refuse(Concat("tensor name is longer than ", kMaxNameBytes, " bytes"));
  if (!names_.insert(name).second) return Refuse("key appears twice");
  in_metadata_ = name == "__metadata__";
  if (!in_metadata_ && static_cast<int64_t>(tensors_.size()) == kMaxSafetensorsTensors) {
    return Refuse(Concat("header has more than ", kMaxSafetensorsTensors, " tensors"));
  }
  field_ = Field::kNone;
  dtype_.reset();
  has_shape_ = has_offsets_ = false;
  offsets_.clear();
  return true;
}

bool SafetensorsSax::TensorKey(const std::string& name) {
  bool seen = false;
  if (name == "dtype") {
    field_ = Field::kDType;
    seen = dtype_.has_value();
  } else if (name == "shape") {
    field_ = Field::kShape;
    seen = std::exchange(has_shape_, true);
  } else if (name == "data_offsets") {
    field_ = Field::kOffsets;
    seen = std::exchange(has_offsets_, true);
  } else {
    return Refuse(Concat("field is unknown: field=", Escaped(name.substr(0, kMaxNameBytes))));
  }
  return seen ? Refuse(Concat("field appears twice: field=", name)) : true;
}

bool SafetensorsSax::end_object() {
  if (place_ == Place::kTop) {
    place_ = Place::kEnd;
    return true;
  }
  if (place_ == Place::kTensor) {
    if (!dtype_) return Refuse("field is missing: field=dtype");
    if (!has_shape_) return Refuse("field is missing: field=shape");
    if (!has_offsets_) return Refuse("field is missing: field=data_offsets");
    tensor_.dtype = *dtype_;
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    tensors_.push_back(std::move(tensor_));
  }
  place_ = Place::kTop;
  return true;
}

bool SafetensorsSax::start_array(std::size_t) {
  if (place_ == Place::kTensor && field_ == Field::kShape) {
    place_ = Place::kShape;
    return true;
  }
  if (place_ == Place::kTensor && field_ == Field::kOffsets) {
    place_ = Place::kOffsets;
    return true;
  }
  return Unexpected("an array");
}

bool SafetensorsSax::end_array() {
  if (place_ == Place::kOffsets && offsets_.size() != 2) return Refuse("data_offsets has fewer than two numbers");
  place_ = Place::kTensor;
  return true;
}

bool SafetensorsSax::parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) {
  return Refuse(Concat("header is not valid JSON: byte=", position));
}

bool SafetensorsSax::Refuse(std::string_view what) {
  const bool at_tensor = place_ != Place::kStart && place_ != Place::kEnd && !tensor_.name.empty();
  status_ = absl::DataLossError(Concat("bad safetensors header: ", what, " file=", file_name_, at_tensor ? " tensor=" : "",
                                       Escaped(at_tensor ? tensor_.name : "")));
  return false;
}

bool SafetensorsSax::Unexpected(std::string_view got) {
  switch (place_) {
    case Place::kStart:
    case Place::kEnd:
      return Refuse("the header must be one object");
    case Place::kTop:
      return Refuse(Concat("the value of a tensor must be an object: got=", got));
    case Place::kMetadata:
      return Refuse(Concat("metadata must map strings to strings: got=", got));
    case Place::kTensor:
      return Refuse(Concat("field has the wrong type: got=", got));
    case Place::kShape:
      return Refuse(Concat("shape must hold non-negative integers: got=", got));
    case Place::kOffsets:
      return Refuse(Concat("data_offsets must hold non-negative integers: got=", got));
  }
  return false;
}

}  // namespace bearing::sharding
