#include "cli/job_schema.h"

#include <google/protobuf/descriptor.pb.h>

#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "bearing/v1/job.pb.h"
#include "cli/embedded_files.h"
#include "jobs/job_spec.h"
#include "jobs/message_reader.h"
#include "sharding/concat.h"

namespace bearing::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using Json = nlohmann::ordered_json;

// Field numbers of descriptor.proto, as places of comments are counted: messages of a file, fields of a message.
constexpr int kMessages = 4;
constexpr int kFields = 2;

std::string OneLine(std::string_view comment) {
  std::string text = absl::StrReplaceAll(AsAbsl(comment), {{"\n", " "}});
  absl::RemoveExtraAsciiWhitespace(&text);
  return text;
}

// Comments of job.proto by place: {4, message} or {4, message, 2, field}.
std::map<std::vector<int>, std::string> Comments() {
  google::protobuf::FileDescriptorSet files;
  const std::string_view bytes = JobProtoWithComments();
  std::map<std::vector<int>, std::string> comments;
  if (!files.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return comments;
  for (const auto& file : files.file()) {
    if (file.name() != bearing::v1::JobSpec::descriptor()->file()->name()) continue;
    for (const auto& location : file.source_code_info().location()) {
      std::string text =
          OneLine(location.leading_comments().empty() ? location.trailing_comments() : location.leading_comments());
      if (!text.empty()) comments[{location.path().begin(), location.path().end()}] = std::move(text);
    }
  }
  return comments;
}

// What a job without a single field, and without completions, is told to have: pairs of a message and its field.
std::set<std::pair<const Descriptor*, std::string>> RequiredFields() {
  bearing::v1::JobSpec spec;
  spec.mutable_evaluate()->set_skip(true);
  std::set<std::pair<const Descriptor*, std::string>> required;
  for (const jobs::FieldViolation& violation : jobs::ValidateFields(spec)) {
    const Descriptor* message = bearing::v1::JobSpec::descriptor();
    for (const absl::string_view part : absl::StrSplit(violation.field, '.')) {
      const FieldDescriptor* field =
          message == nullptr ? nullptr : jobs::FindField(*message, std::string_view(part.data(), part.size()));
      if (field == nullptr) break;
      required.emplace(message, jobs::FieldName(*field));
      message = field->message_type();
    }
  }
  return required;
}

class SchemaMaker {
 public:
  SchemaMaker() : comments_(Comments()), required_(RequiredFields()) {
    for (FieldWords& field : JobFieldWords()) words_[std::string(field.field)] = std::move(field.words);
  }

  Json Make() {
    Json root = Message(*bearing::v1::JobSpec::descriptor());
    Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                   {"title", "Job file of Bearing"},
                   {"description", "What a job is to do: model, concept, prompts, and settings of its stages."},
                   {"type", "object"}};
    Json properties = {{"apiVersion", {{"const", "bearing/v1"}, {"description", "Version of the form of this file."}}},
                       {"kind", {{"const", "Job"}, {"description", "What the file describes."}}}};
    properties.update(root["properties"]);
    schema["properties"] = std::move(properties);
    if (root.contains("patternProperties")) schema["patternProperties"] = root["patternProperties"];
    Json required = {"apiVersion", "kind"};
    if (root.contains("required")) required.insert(required.end(), root["required"].begin(), root["required"].end());
    schema["required"] = std::move(required);
    if (root.contains("allOf")) schema["allOf"] = root["allOf"];
    schema["additionalProperties"] = false;
    schema["$defs"] = std::move(definitions_);
    return schema;
  }

 private:
  std::string Comment(const std::vector<int>& place) const {
    const auto found = comments_.find(place);
    return found == comments_.end() ? "" : found->second;
  }

  Json Message(const Descriptor& message) {
    Json properties = Json::object(), spellings = Json::object(), required = Json::array(), one_of_spellings = Json::array();
    for (int i = 0; i < message.field_count(); ++i) {
      const FieldDescriptor& field = *message.field(i);
      const std::string name = jobs::FieldName(field);
      Json property = Field(field);
      const std::string comment = Comment({kMessages, message.index(), kFields, field.index()});
      if (!comment.empty()) property["description"] = comment;
      // Other spellings are taken, but an editor is to offer one alone.
      std::set<std::string> others = {field.name(), field.camelcase_name(), field.json_name()};
      others.erase(name);
      for (const std::string& other : others) spellings[absl::StrCat("^", other, "$")] = property;
      properties[name] = std::move(property);
      if (!required_.contains({&message, name})) continue;
      if (others.empty()) {
        required.push_back(name);
        continue;
      }
      Json any = Json::array({{{"required", Json::array({name})}}});
      for (const std::string& other : others) any.push_back({{"required", Json::array({other})}});
      one_of_spellings.push_back({{"anyOf", std::move(any)}});
    }
    Json schema = {{"type", "object"}};
    if (const std::string comment = Comment({kMessages, message.index()}); !comment.empty()) schema["description"] = comment;
    schema["properties"] = std::move(properties);
    if (!spellings.empty()) schema["patternProperties"] = std::move(spellings);
    if (!required.empty()) schema["required"] = std::move(required);
    if (!one_of_spellings.empty()) schema["allOf"] = std::move(one_of_spellings);
    schema["additionalProperties"] = false;
    return schema;
  }

  Json Field(const FieldDescriptor& field) {
    if (field.is_map()) {
      return {{"type", {"object", "null"}}, {"additionalProperties", Value(*field.message_type()->map_value())}};
    }
    if (field.is_repeated()) return {{"type", {"array", "null"}}, {"items", Value(field)}};
    Json value = Value(field);
    // null leaves a field unset, unless a job cannot do without it.
    if (required_.contains({field.containing_type(), jobs::FieldName(field)})) return value;
    if (value.contains("type")) {
      Json types = value["type"].is_array() ? value["type"] : Json::array({value["type"]});
      types.push_back("null");
      value["type"] = std::move(types);
      if (value.contains("enum")) value["enum"].push_back(nullptr);
      return value;
    }
    return {{"anyOf", Json::array({std::move(value), {{"type", "null"}}})}};
  }

  Json Value(const FieldDescriptor& field) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        const std::string name = field.message_type()->name();
        if (!definitions_.contains(name)) {
          definitions_[name] = nullptr;  // In the order they are met; a message may hold itself.
          definitions_[name] = Message(*field.message_type());
        }
        return {{"$ref", absl::StrCat("#/$defs/", name)}};
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        Json names = Json::array();
        for (int i = 0; i < field.enum_type()->value_count(); ++i) names.push_back(field.enum_type()->value(i)->name());
        return {{"type", "string"}, {"enum", std::move(names)}};
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        const auto words = words_.find(absl::StrCat(field.containing_type()->name(), ".", field.name()));
        if (words == words_.end()) return {{"type", {"string", "number"}}};
        return {{"type", "string"}, {"enum", words->second}};
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        return {{"type", "boolean"}};
      case FieldDescriptor::CPPTYPE_DOUBLE:
      case FieldDescriptor::CPPTYPE_FLOAT:
        return {{"type", "number"}};
      case FieldDescriptor::CPPTYPE_INT32:
        return {{"type", "integer"},
                {"minimum", std::numeric_limits<int32_t>::min()},
                {"maximum", std::numeric_limits<int32_t>::max()}};
      default:
        return {{"type", "integer"}};
    }
  }

  const std::map<std::vector<int>, std::string> comments_;
  const std::set<std::pair<const Descriptor*, std::string>> required_;
  std::map<std::string, std::vector<std::string>> words_;
  Json definitions_ = Json::object();
};

}  // namespace

std::vector<FieldWords> JobFieldWords() {
  const std::vector<std::string> dtypes = {"float32", "bfloat16"};
  const std::vector<std::string> residencies = {"auto", "resident", "streamed"};
  return {{"Model.dtype", dtypes},
          {"Model.residency", residencies},
          {"Select.when_none_passes", {"fail", "relax_kl", "relax_induce"}},
          {"Edit.form", {"checkpoint", "lora", "control-vector", "direction"}},
          {"Judge.kind", {"substrings", "metric", "model"}},
          {"JudgeModel.preset", {"llama-guard", "harmbench"}},
          {"JudgeModel.format", {"chat", "raw", "conversation"}},
          {"JudgeModel.dtype", dtypes},
          {"JudgeModel.residency", residencies},
          {"CostCompletions.side", {"negative", "positive", "both"}}};
}

nlohmann::ordered_json JobSchema() { return SchemaMaker().Make(); }

}  // namespace bearing::cli
