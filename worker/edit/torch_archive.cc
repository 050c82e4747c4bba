#include "worker/edit/torch_archive.h"

#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "sharding/concat.h"
#include "sharding/dtype.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "worker/edit/projection.h"

namespace bearing::edit {
namespace {

using sharding::DType;

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr int64_t kMaxPickleBytes = 1 << 20;
constexpr int64_t kMaxElements = int64_t{1} << 27;

absl::Status Bad(std::string_view what, std::string_view path) {
  return absl::InvalidArgumentError(Concat("cannot read a tensor from this file: ", what, " file=", path));
}

uint64_t Little(std::string_view bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return value;
}

// ---- The zip archive: its members, which torch stores without compression.

absl::StatusOr<std::map<std::string, std::string_view>> Members(std::string_view file, std::string_view path) {
  constexpr std::string_view kEnd("PK\x05\x06", 4);
  constexpr std::string_view kEntry("PK\x01\x02", 4);
  constexpr std::string_view kLocal("PK\x03\x04", 4);
  const size_t end = file.rfind(kEnd);
  if (end == std::string_view::npos || end + 22 > file.size()) return Bad("not a zip archive of torch.save", path);
  const uint64_t count = Little(file, end + 10, 2);
  uint64_t at = Little(file, end + 16, 4);
  std::map<std::string, std::string_view> members;
  for (uint64_t i = 0; i < count; ++i) {
    if (at + 46 > file.size() || file.substr(at, 4) != kEntry) return Bad("damaged directory of the archive", path);
    const uint64_t method = Little(file, at + 10, 2);
    const uint64_t size = Little(file, at + 24, 4);
    const uint64_t name_size = Little(file, at + 28, 2);
    const uint64_t local = Little(file, at + 42, 4);
    if (at + 46 + name_size > file.size()) return Bad("damaged directory of the archive", path);
    const std::string name(file.substr(at + 46, name_size));
    at += 46 + name_size + Little(file, at + 30, 2) + Little(file, at + 32, 2);
    if (local + 30 > file.size() || file.substr(local, 4) != kLocal) return Bad("damaged member of the archive", path);
    const uint64_t data = local + 30 + Little(file, local + 26, 2) + Little(file, local + 28, 2);
    if (method != 0) return Bad(Concat("member of the archive is compressed: ", Escaped(name)), path);
    if (data > file.size() || size > file.size() - data) return Bad("member ends behind the file", path);
    members[name] = file.substr(data, size);
  }
  return members;
}

// ---- The pickle: a stack machine of which only values and one constructor exist here.

struct Value;
using Tuple = std::vector<Value>;

struct Global {
  std::string name;  // "module name"
};
struct Storage {
  DType dtype = DType::kF32;
  std::string key;
};
struct TensorValue {
  Storage storage;
  int64_t offset = 0;
  std::vector<int64_t> shape, stride;
};
struct Nothing {};
struct Mark {};
struct Value {
  std::variant<Nothing, Mark, int64_t, std::string, Global, Tuple, Storage, TensorValue> is;
};

class Pickle {
 public:
  Pickle(std::string_view code, std::string_view path) : code_(code), path_(path) {}

  absl::StatusOr<TensorValue> Run();

 private:
  absl::Status Step(unsigned char op);
  absl::StatusOr<std::string_view> Take(size_t count) {
    if (count > code_.size() - at_) return Bad("pickle ends early", path_);
    at_ += count;
    return code_.substr(at_ - count, count);
  }
  absl::StatusOr<Value> Pop() {
    if (stack_.empty()) return Bad("damaged pickle", path_);
    Value value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  absl::Status PushTuple(size_t count) {
    if (count > stack_.size()) return Bad("damaged pickle", path_);
    Tuple items(std::make_move_iterator(stack_.end() - static_cast<std::ptrdiff_t>(count)),
                std::make_move_iterator(stack_.end()));
    stack_.resize(stack_.size() - count);
    stack_.push_back({std::move(items)});
    return absl::OkStatus();
  }
  absl::Status PushNumber(size_t bytes, bool is_signed) {
    BEARING_ASSIGN_OR_RETURN(const std::string_view raw, Take(bytes));
    const uint64_t value = Little(raw, 0, bytes);
    stack_.push_back({is_signed && bytes == 4 ? int64_t{static_cast<int32_t>(value)} : static_cast<int64_t>(value)});
    return absl::OkStatus();
  }
  absl::StatusOr<std::string_view> TakeLine() {
    const size_t end = code_.find('\n', at_);
    if (end == std::string_view::npos) return Bad("pickle ends early", path_);
    const std::string_view line = code_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }
  absl::StatusOr<Storage> ToStorage(const Value& id) const;
  absl::StatusOr<TensorValue> Rebuild(const Value& arguments) const;
  absl::Status Reduce();

  std::string_view code_;
  std::string path_;
  size_t at_ = 0;
  std::vector<Value> stack_;
  std::map<uint64_t, Value> memo_;
};

// ('storage', torch.DoubleStorage, key, device, elements)
absl::StatusOr<Storage> Pickle::ToStorage(const Value& id) const {
  static const std::map<std::string_view, DType> kTypes = {{"torch DoubleStorage", DType::kF64},
                                                           {"torch FloatStorage", DType::kF32},
                                                           {"torch HalfStorage", DType::kF16},
                                                           {"torch BFloat16Storage", DType::kBF16}};
  const auto* const parts = std::get_if<Tuple>(&id.is);
  if (parts == nullptr || parts->size() < 3) return Bad("damaged pickle", path_);
  const auto* const type = std::get_if<Global>(&(*parts)[1].is);
  const auto* const key = std::get_if<std::string>(&(*parts)[2].is);
  if (type == nullptr || key == nullptr) return Bad("damaged pickle", path_);
  const auto found = kTypes.find(type->name);
  if (found == kTypes.end()) return Bad(Concat("tensor of another type than float: ", Escaped(type->name)), path_);
  return Storage{found->second, *key};
}

absl::StatusOr<TensorValue> Pickle::Rebuild(const Value& arguments) const {
  const auto* const parts = std::get_if<Tuple>(&arguments.is);
  if (parts == nullptr || parts->size() < 4) return Bad("damaged pickle", path_);
  const auto* const storage = std::get_if<Storage>(&(*parts)[0].is);
  const auto* const offset = std::get_if<int64_t>(&(*parts)[1].is);
  const auto* const shape = std::get_if<Tuple>(&(*parts)[2].is);
  const auto* const stride = std::get_if<Tuple>(&(*parts)[3].is);
  if (storage == nullptr || offset == nullptr || shape == nullptr || stride == nullptr || shape->size() != stride->size()) {
    return Bad("damaged pickle", path_);
  }
  TensorValue tensor{.storage = *storage, .offset = *offset, .shape = {}, .stride = {}};
  for (size_t i = 0; i < shape->size(); ++i) {
    const auto* const length = std::get_if<int64_t>(&(*shape)[i].is);
    const auto* const step = std::get_if<int64_t>(&(*stride)[i].is);
    if (length == nullptr || step == nullptr) return Bad("damaged pickle", path_);
    tensor.shape.push_back(*length);
    tensor.stride.push_back(*step);
  }
  return tensor;
}

absl::Status Pickle::Reduce() {
  BEARING_ASSIGN_OR_RETURN(const Value arguments, Pop());
  BEARING_ASSIGN_OR_RETURN(const Value callee, Pop());
  const auto* const function = std::get_if<Global>(&callee.is);
  if (function == nullptr) return Bad("damaged pickle", path_);
  if (function->name == "torch._utils _rebuild_tensor_v2") {
    BEARING_ASSIGN_OR_RETURN(TensorValue tensor, Rebuild(arguments));
    stack_.push_back({std::move(tensor)});
    return absl::OkStatus();
  }
  if (function->name == "collections OrderedDict") {
    stack_.push_back({Nothing{}});  // The tensor's backward hooks: none.
    return absl::OkStatus();
  }
  return Bad(Concat("it wants to call ", Escaped(function->name), ", and nothing but a plain tensor is read"), path_);
}

absl::Status Pickle::Step(unsigned char op) {
  switch (op) {
    case 0x80:  // PROTO
      return Take(1).status();
    case 0x95:  // FRAME
      return Take(8).status();
    case '(':
      stack_.push_back({Mark{}});
      return absl::OkStatus();
    case ')':
      return PushTuple(0);
    case 0x85:
    case 0x86:
    case 0x87:
      return PushTuple(op - 0x84u);
    case 't': {
      size_t count = 0;
      while (count < stack_.size() && !std::holds_alternative<Mark>(stack_[stack_.size() - 1 - count].is)) ++count;
      if (count == stack_.size()) return Bad("damaged pickle", path_);
      BEARING_RETURN_IF_ERROR(PushTuple(count));
      stack_.erase(stack_.end() - 2);
      return absl::OkStatus();
    }
    case '}':
    case 'N':
      stack_.push_back({Nothing{}});
      return absl::OkStatus();
    case 0x88:
    case 0x89:
      stack_.push_back({int64_t{op == 0x88}});
      return absl::OkStatus();
    case 'J':
      return PushNumber(4, true);
    case 'K':
      return PushNumber(1, false);
    case 'M':
      return PushNumber(2, false);
    case 0x8a: {  // LONG1
      BEARING_ASSIGN_OR_RETURN(const std::string_view count, Take(1));
      const auto bytes = static_cast<size_t>(static_cast<unsigned char>(count[0]));
      if (bytes > 7) return Bad("number is too large", path_);
      return PushNumber(bytes, false);
    }
    case 'X':
    case 0x8c: {
      const size_t width = op == 'X' ? 4 : 1;
      BEARING_ASSIGN_OR_RETURN(const std::string_view size, Take(width));
      BEARING_ASSIGN_OR_RETURN(const std::string_view text, Take(Little(size, 0, width)));
      stack_.push_back({std::string(text)});
      return absl::OkStatus();
    }
    case 'c': {
      BEARING_ASSIGN_OR_RETURN(const std::string_view module, TakeLine());
      BEARING_ASSIGN_OR_RETURN(const std::string_view name, TakeLine());
      stack_.push_back({Global{Concat(module, " ", name)}});
      return absl::OkStatus();
    }
    case 0x93: {  // STACK_GLOBAL
      BEARING_ASSIGN_OR_RETURN(const Value name, Pop());
      BEARING_ASSIGN_OR_RETURN(const Value module, Pop());
      if (!std::holds_alternative<std::string>(name.is) || !std::holds_alternative<std::string>(module.is)) {
        return Bad("damaged pickle", path_);
      }
      stack_.push_back({Global{Concat(std::get<std::string>(module.is), " ", std::get<std::string>(name.is))}});
      return absl::OkStatus();
    }
    case 'q':
    case 'r':
    case 0x94: {
      uint64_t slot = memo_.size();
      if (op != 0x94) {
        BEARING_ASSIGN_OR_RETURN(const std::string_view raw, Take(op == 'q' ? 1 : 4));
        slot = Little(raw, 0, raw.size());
      }
      if (stack_.empty()) return Bad("damaged pickle", path_);
      memo_[slot] = stack_.back();
      return absl::OkStatus();
    }
    case 'h':
    case 'j': {
      BEARING_ASSIGN_OR_RETURN(const std::string_view raw, Take(op == 'h' ? 1 : 4));
      const auto found = memo_.find(Little(raw, 0, raw.size()));
      if (found == memo_.end()) return Bad("damaged pickle", path_);
      stack_.push_back(found->second);
      return absl::OkStatus();
    }
    case 'Q': {
      BEARING_ASSIGN_OR_RETURN(const Value id, Pop());
      BEARING_ASSIGN_OR_RETURN(Storage storage, ToStorage(id));
      stack_.push_back({std::move(storage)});
      return absl::OkStatus();
    }
    case 'R':
      return Reduce();
    default:
      return Bad(Concat("its pickle does more than describe a tensor (operation ", static_cast<int>(op), ")"), path_);
  }
}

absl::StatusOr<TensorValue> Pickle::Run() {
  while (at_ < code_.size()) {
    const auto op = static_cast<unsigned char>(code_[at_++]);
    if (op == '.') {
      BEARING_ASSIGN_OR_RETURN(const Value top, Pop());
      if (const auto* const tensor = std::get_if<TensorValue>(&top.is)) return *tensor;
      return Bad("it holds something else than one tensor", path_);
    }
    BEARING_RETURN_IF_ERROR(Step(op));
  }
  return Bad("pickle ends early", path_);
}

double ElementAt(std::string_view storage, DType dtype, int64_t index) {
  const char* const at = storage.data() + index * sharding::DTypeSize(dtype);
  if (dtype == DType::kF64) {
    double value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  float value = 0;
  Decode(dtype, at, 1, &value);
  return static_cast<double>(value);
}

absl::StatusOr<ArchivedTensor> Gather(const TensorValue& tensor, std::string_view storage, std::string_view path) {
  const int64_t stored = static_cast<int64_t>(storage.size()) / sharding::DTypeSize(tensor.storage.dtype);
  int64_t count = 1;
  int64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    int64_t reach = 0;
    if (tensor.shape[i] < 1 || tensor.stride[i] < 0 || __builtin_mul_overflow(count, tensor.shape[i], &count) ||
        count > kMaxElements || __builtin_mul_overflow(tensor.shape[i] - 1, tensor.stride[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return Bad("shape is empty or too large", path);
    }
  }
  if (tensor.offset < 0 || last >= stored) {
    return Bad(Concat("tensor reaches behind its storage: last element=", last, " stored=", stored), path);
  }
  ArchivedTensor result{.shape = tensor.shape, .values = {}};
  result.values.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    int64_t at = tensor.offset;
    for (size_t axis = tensor.shape.size(); axis-- > 0;) {
      at += rest % tensor.shape[axis] * tensor.stride[axis];
      rest /= tensor.shape[axis];
    }
    result.values.push_back(ElementAt(storage, tensor.storage.dtype, at));
  }
  return result;
}

}  // namespace

absl::StatusOr<ArchivedTensor> ReadTorchTensor(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string file, sharding::ReadWholeFile(path, kMaxFileBytes));
  BEARING_ASSIGN_OR_RETURN(const auto members, Members(file, path));
  constexpr std::string_view kPickle = "/data.pkl";
  for (const auto& [name, code] : members) {
    if (!name.ends_with(kPickle)) continue;
    if (static_cast<int64_t>(code.size()) > kMaxPickleBytes) return Bad("pickle is too large", path);
    BEARING_ASSIGN_OR_RETURN(const TensorValue tensor, Pickle(code, path).Run());
    const std::string folder = name.substr(0, name.size() - kPickle.size());
    const auto order = members.find(folder + "/byteorder");
    if (order != members.end() && order->second != "little") return Bad("values are not little-endian", path);
    const auto storage = members.find(Concat(folder, "/data/", tensor.storage.key));
    if (storage == members.end()) return Bad(Concat("archive lacks its storage: ", Escaped(tensor.storage.key)), path);
    return Gather(tensor, storage->second, path);
  }
  return Bad("archive has no data.pkl", path);
}

}  // namespace bearing::edit
