#include "jobs/message_reader.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "jobs/did_you_mean.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Join(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : Concat(path, ".", name);
}

std::vector<std::string> FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  names.reserve(descriptor.field_count());
  for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(FieldName(*descriptor.field(i)));
  return names;
}

// Path of the field called `key` in the groups below `descriptor`; empty if there is none or more than one.
std::string PathElsewhere(const Descriptor& descriptor, std::string_view key, const std::string& path, int& found) {
  std::string result;
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field.is_repeated()) continue;
    const std::string group = Join(path, FieldName(field));
    if (const FieldDescriptor* inner = FindField(*field.message_type(), key)) {
      ++found;
      result = Join(group, FieldName(*inner));
    }
    const std::string deeper = PathElsewhere(*field.message_type(), key, group, found);
    if (!deeper.empty()) result = deeper;
  }
  return found == 1 ? result : "";
}

std::optional<bool> AsBool(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || node.quoted) return std::nullopt;
  if (node.text == "true" || node.text == "True" || node.text == "TRUE") return true;
  if (node.text == "false" || node.text == "False" || node.text == "FALSE") return false;
  return std::nullopt;
}

template <typename Integer>
std::optional<Integer> AsInteger(const YamlNode& node) {
  Integer value = 0;
  if (node.kind != YamlNode::Kind::kScalar || node.quoted || !absl::SimpleAtoi(node.text, &value)) return std::nullopt;
  return value;
}

std::optional<double> AsDouble(const YamlNode& node) {
  double value = 0;
  if (node.kind != YamlNode::Kind::kScalar || node.quoted || !absl::SimpleAtod(node.text, &value)) return std::nullopt;
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::string FieldName(const FieldDescriptor& field) {
  return field.json_name() == field.camelcase_name() ? field.name() : field.json_name();
}

const FieldDescriptor* FindField(const Descriptor& descriptor, std::string_view key) {
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    if (key == field->name() || key == field->camelcase_name() || key == field->json_name()) return field;
  }
  return nullptr;
}

std::string UnknownKeyMessage(const Descriptor& descriptor, const Descriptor& root, std::string_view key) {
  int found = 0;
  const std::string elsewhere = PathElsewhere(root, key, "", found);
  if (!elsewhere.empty()) return Concat("unknown key; did you mean \"", elsewhere, "\"?");
  if (FindField(root, key) != nullptr) return Concat("unknown key; \"", key, "\" belongs at the top level");
  const std::vector<std::string> names = FieldNames(descriptor);
  const std::string nearest = NearestName(key, names);
  if (!nearest.empty()) return Concat("unknown key; did you mean \"", nearest, "\"?");
  return Concat("unknown key; known here: ", absl::StrJoin(names, ", "));
}

void MessageReader::Wrong(const YamlNode& node, const std::string& path, std::string_view expected) {
  problems_.push_back({node.line, path, Concat("expected ", expected, ", found ", Describe(node))});
}

void MessageReader::ReadMessage(const YamlNode& node, const std::string& path, const std::set<std::string>& reserved,
                                Message& message) {
  if (root_ == nullptr) root_ = message.GetDescriptor();
  if (node.kind == YamlNode::Kind::kNull) return;
  const Descriptor& descriptor = *message.GetDescriptor();
  if (node.kind != YamlNode::Kind::kMap) {
    return Wrong(node, path, Concat("a map with ", absl::StrJoin(FieldNames(descriptor), ", ")));
  }
  std::map<std::string, int> first_line;
  for (const auto& [key, value] : node.entries) {
    if (key->kind != YamlNode::Kind::kScalar) {
      Wrong(*key, path, "a key that is text");
      continue;
    }
    const FieldDescriptor* field = FindField(descriptor, key->text);
    const std::string name = field == nullptr ? key->text : FieldName(*field);
    const auto [first, is_new] = first_line.emplace(name, key->line);
    if (!is_new) {
      problems_.push_back({key->line, Join(path, name), Concat("given twice, first on line ", first->second)});
    } else if (field != nullptr) {
      ReadField(*value, Join(path, name), *field, message);
    } else if (reserved.count(key->text) == 0) {
      problems_.push_back({key->line, Join(path, name), UnknownKeyMessage(descriptor, *root_, key->text)});
    }
  }
}

void MessageReader::ReadField(const YamlNode& node, const std::string& path, const FieldDescriptor& field, Message& message) {
  message.GetReflection()->ClearField(&message, &field);
  if (node.kind == YamlNode::Kind::kNull) return;
  if (field.is_map()) return ReadMap(node, path, field, message);
  if (field.is_repeated()) return ReadList(node, path, field, message);
  ReadValue(node, path, field, message);
}

void MessageReader::ReadList(const YamlNode& node, const std::string& path, const FieldDescriptor& field, Message& message) {
  if (node.kind != YamlNode::Kind::kSequence) return Wrong(node, path, "a list");
  for (size_t i = 0; i < node.items.size(); ++i) {
    ReadValue(*node.items[i], Concat(path, "[", i, "]"), field, message);
  }
}

void MessageReader::ReadMap(const YamlNode& node, const std::string& path, const FieldDescriptor& field, Message& message) {
  if (node.kind != YamlNode::Kind::kMap) return Wrong(node, path, "a map");
  std::set<std::string> seen;
  for (const auto& [key, value] : node.entries) {
    if (key->kind != YamlNode::Kind::kScalar) {
      Wrong(*key, path, "a key that is text");
      continue;
    }
    if (!seen.insert(key->text).second) {
      problems_.push_back({key->line, Join(path, key->text), "given twice"});
      continue;
    }
    Message* entry = message.GetReflection()->AddMessage(&message, &field);
    ReadValue(*key, path, *field.message_type()->map_key(), *entry);
    ReadValue(*value, Join(path, key->text), *field.message_type()->map_value(), *entry);
  }
}

void MessageReader::ReadValue(const YamlNode& node, const std::string& path, const FieldDescriptor& field, Message& message) {
  const Reflection& reflection = *message.GetReflection();
  const bool add = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      Message* inner = add ? reflection.AddMessage(&message, &field) : reflection.MutableMessage(&message, &field);
      return ReadMessage(node, path, {}, *inner);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      if (node.kind != YamlNode::Kind::kScalar) return Wrong(node, path, "text");
      add ? reflection.AddString(&message, &field, node.text) : reflection.SetString(&message, &field, node.text);
      return;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      const std::optional<bool> value = AsBool(node);
      if (!value) return Wrong(node, path, "true or false");
      add ? reflection.AddBool(&message, &field, *value) : reflection.SetBool(&message, &field, *value);
      return;
    }
    case FieldDescriptor::CPPTYPE_INT32: {
      const std::optional<int32_t> value = AsInteger<int32_t>(node);
      if (!value) return Wrong(node, path, "a whole number");
      add ? reflection.AddInt32(&message, &field, *value) : reflection.SetInt32(&message, &field, *value);
      return;
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      const std::optional<int64_t> value = AsInteger<int64_t>(node);
      if (!value) return Wrong(node, path, "a whole number");
      add ? reflection.AddInt64(&message, &field, *value) : reflection.SetInt64(&message, &field, *value);
      return;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const std::optional<double> value = AsDouble(node);
      if (!value) return Wrong(node, path, "a number");
      add ? reflection.AddDouble(&message, &field, *value) : reflection.SetDouble(&message, &field, *value);
      return;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      std::vector<std::string> names;
      names.reserve(field.enum_type()->value_count());
      for (int i = 0; i < field.enum_type()->value_count(); ++i) names.push_back(field.enum_type()->value(i)->name());
      const EnumValueDescriptor* value =
          node.kind == YamlNode::Kind::kScalar ? field.enum_type()->FindValueByName(node.text) : nullptr;
      if (value == nullptr) return Wrong(node, path, Concat("one of ", absl::StrJoin(names, ", ")));
      add ? reflection.AddEnum(&message, &field, value) : reflection.SetEnum(&message, &field, value);
      return;
    }
    default:
      problems_.push_back({node.line, path, Concat("fields of type ", field.type_name(), " cannot be given in a file")});
  }
}

}  // namespace bearing::jobs
