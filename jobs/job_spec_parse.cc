#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "jobs/artifacts.h"
#include "jobs/cost_fields.h"
#include "jobs/job_spec.h"
#include "jobs/message_reader.h"
#include "jobs/prompt_fields.h"
#include "jobs/text_job.h"
#include "jobs/yaml_tree.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxJobFileBytes = 1 << 20;
constexpr char kApiVersion[] = "bearing/v1";
constexpr char kKind[] = "Job";

// The two keys that say what the file is. They are no fields of the spec.
void CheckHeader(const YamlNode& root, std::string_view key, std::string_view wanted,
                 std::vector<MessageReader::Problem>& problems) {
  const YamlNode* found = nullptr;
  for (const auto& [name, value] : root.entries) {
    if (name->text != key) continue;
    if (found == nullptr) found = value.get();
  }
  if (found == nullptr) {
    problems.push_back({root.line, std::string(key), Concat("missing; write `", key, ": ", wanted, "`")});
  } else if (found->kind != YamlNode::Kind::kScalar || found->text != wanted) {
    problems.push_back({found->line, std::string(key), Concat("expected \"", wanted, "\", found ", Describe(*found))});
  }
}

absl::Status UnknownField(std::string_view path, std::string_view message) {
  return absl::InvalidArgumentError(Concat(path, ": ", message));
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobFile(std::string_view text, std::string_view source) {
  if (text.size() > kMaxJobFileBytes) {
    return absl::InvalidArgumentError(
        Concat(source, ": too large for a job file: bytes=", text.size(), " at most=", kMaxJobFileBytes));
  }
  if (IsTextJob(source)) return ParseTextJob(text, source);
  BEARING_ASSIGN_OR_RETURN(const YamlNodePtr root, ParseYaml(text, source));
  if (root->kind == YamlNode::Kind::kNull) return absl::InvalidArgumentError(Concat(source, ": the job file is empty"));
  JobSpec spec;
  MessageReader reader;
  reader.ReadMessage(*root, "", {"apiVersion", "kind"}, spec);
  std::vector<MessageReader::Problem> problems;
  if (root->kind == YamlNode::Kind::kMap) {
    CheckHeader(*root, "apiVersion", kApiVersion, problems);
    CheckHeader(*root, "kind", kKind, problems);
  }
  problems.insert(problems.end(), reader.problems().begin(), reader.problems().end());
  if (problems.empty()) return spec;
  std::vector<std::string> lines;
  for (const MessageReader::Problem& problem : problems) {
    const std::string field = problem.field.empty() ? "" : problem.field + ": ";
    lines.push_back(Concat(source, ":", problem.line, ": ", field, problem.message));
  }
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

absl::StatusOr<JobSpec> LoadJobFile(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  BEARING_ASSIGN_OR_RETURN(JobSpec spec, ParseJobFile(text, path));
  std::error_code error;
  const std::filesystem::path current = std::filesystem::current_path(error);
  if (error) return absl::InternalError(Concat("cannot tell the current folder: ", error.message()));
  const std::string folder = (current / path).parent_path().string();
  for (const PromptField& field : PromptFields()) {
    // Reading a source through its mutable accessor would make the field present.
    if (FindSource(spec, field) == nullptr) continue;
    bearing::v1::PromptSource& source = MutableSource(spec, field);
    source.set_file(storage::ResolveAddress(source.file(), folder));
  }
  for (const CostFile& cost : CostFiles(spec)) *cost.file = storage::ResolveAddress(*cost.file, folder);
  if (spec.has_model()) {
    spec.mutable_model()->set_path(storage::ResolveAddress(spec.model().path(), folder));
    spec.mutable_model()->set_chat_template(storage::ResolveAddress(spec.model().chat_template(), folder));
  }
  for (bearing::v1::Judge& judge : *spec.mutable_judges()) {
    if (!judge.has_model()) continue;
    bearing::v1::JudgeModel& model = *judge.mutable_model();
    model.set_path(storage::ResolveAddress(model.path(), folder));
    model.set_prompt_file(storage::ResolveAddress(model.prompt_file(), folder));
    model.set_chat_template(storage::ResolveAddress(model.chat_template(), folder));
  }
  spec.set_output(storage::ResolveAddress(spec.output(), current.string()));
  return spec;
}

absl::Status SetField(JobSpec& spec, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(Concat("expected FIELD=VALUE, e.g. select.kl_max=0.2; found \"", assignment, "\""));
  }
  const std::string path(absl::StripAsciiWhitespace(AsAbsl(assignment.substr(0, equals))));
  const std::string_view text = assignment.substr(equals + 1);
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  // Work on a copy: a wrong value leaves the spec as it was.
  JobSpec changed = spec;
  Message* message = &changed;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Descriptor& descriptor = *message->GetDescriptor();
    const FieldDescriptor* field = FindField(descriptor, parts[i]);
    if (field == nullptr) return UnknownField(path, UnknownKeyMessage(descriptor, *JobSpec::descriptor(), parts[i]));
    const bool last = i + 1 == parts.size();
    if (field->is_map() && !last) {
      // Label keys may hold dots, so the rest of the path is the key.
      const std::string key = absl::StrJoin(parts.begin() + i + 1, parts.end(), ".");
      (*changed.mutable_labels())[key] = std::string(text);
      spec = std::move(changed);
      return absl::OkStatus();
    }
    const bool group = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (group && field->is_repeated() && !field->is_map()) {
      return UnknownField(path, Concat("\"", parts[i], "\" is a list of groups; it can only be given in the job file"));
    }
    if (!last) {
      if (!group) return UnknownField(path, Concat("\"", parts[i], "\" has no fields of its own"));
      message = message->GetReflection()->MutableMessage(message, field);
      continue;
    }
    if (group) {
      std::vector<std::string> names;
      const Descriptor& inner = *field->message_type();
      names.reserve(inner.field_count());
      for (int j = 0; j < inner.field_count(); ++j) names.push_back(FieldName(*inner.field(j)));
      if (field->is_map()) names = {"KEY"};
      return UnknownField(path, Concat("is a group; set one of its fields: ", absl::StrJoin(names, ", ")));
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && !field->is_repeated()) {
      message->GetReflection()->SetString(message, field, std::string(text));
      break;
    }
    const bool bare_list = field->is_repeated() && !absl::StartsWith(absl::StripLeadingAsciiWhitespace(AsAbsl(text)), "[");
    BEARING_ASSIGN_OR_RETURN(const YamlNodePtr node, ParseYaml(bare_list ? Concat("[", text, "]") : std::string(text), path));
    MessageReader reader;
    reader.ReadField(*node, path, *field, *message);
    if (!reader.problems().empty()) {
      return UnknownField(reader.problems().front().field, reader.problems().front().message);
    }
  }
  spec = std::move(changed);
  return absl::OkStatus();
}

}  // namespace bearing::jobs
