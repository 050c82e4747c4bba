#include "jobs/text_job.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "jobs/message_reader.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// What protobuf says of an unknown field: Message type "bearing.v1.Select" has no field named "kl_mx".
std::string WithSuggestion(const std::string& message) {
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  if (parts.size() != 5 || !absl::StrContains(parts[2], "has no field named")) return message;
  const Descriptor* type = JobSpec::descriptor()->file()->pool()->FindMessageTypeByName(parts[1]);
  if (type == nullptr) return message;
  return Concat(parts[3], ": ", UnknownKeyMessage(*type, *JobSpec::descriptor(), parts[3]));
}

// Escapes in a text can make any bytes. Path of the first field that is not UTF-8; empty when all are.
std::string FieldThatIsNoText(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string name = FieldName(*field);
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        const std::string text =
            field->is_repeated() ? reflection.GetRepeatedString(message, field, i) : reflection.GetString(message, field);
        if (FirstInvalidUtf8(text) != std::string_view::npos) return name;
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const std::string inner = FieldThatIsNoText(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                                                         : reflection.GetMessage(message, field));
        if (!inner.empty()) return Concat(name, ".", inner);
      }
    }
  }
  return "";
}

class Mistakes final : public google::protobuf::io::ErrorCollector {
 public:
  explicit Mistakes(std::string_view source) : source_(source) {}

  // Counted from 0; -1 is of the whole text.
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    const std::string place = line < 0 ? "" : Concat(line + 1, ":", column + 1, ":");
    lines_.push_back(Concat(source_, ":", place, " ", WithSuggestion(message)));
  }
  std::string text() const { return absl::StrJoin(lines_, "\n"); }

 private:
  std::string_view source_;
  std::vector<std::string> lines_;
};

}  // namespace

bool IsTextJob(std::string_view path) {
  for (const std::string_view ending : {".textproto", ".txtpb", ".pbtxt"}) {
    if (absl::EndsWith(AsAbsl(path), AsAbsl(ending))) return true;
  }
  return false;
}

absl::StatusOr<JobSpec> ParseTextJob(std::string_view text, std::string_view source) {
  Mistakes mistakes(source);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&mistakes);
  JobSpec spec;
  google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  if (!parser.Parse(&stream, &spec)) return absl::InvalidArgumentError(mistakes.text());
  if (spec.ByteSizeLong() == 0) return absl::InvalidArgumentError(Concat(source, ": the job file is empty"));
  const std::string field = FieldThatIsNoText(spec);
  if (!field.empty()) return absl::InvalidArgumentError(Concat(source, ": ", field, ": not valid UTF-8"));
  return spec;
}

}  // namespace bearing::jobs
