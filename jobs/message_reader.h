// From a YAML tree to a protobuf message, field by field through its descriptor, so that each mistake is reported with the
// field's path and the line: unknown keys (with a suggestion), wrong types, keys given twice.
//
// Keys may be spelled as in the .proto (kl_max), in lowerCamel (klMax), or by their JSON name (concept). `null` leaves a field
// unset. Text in quotes is never a number or a truth value; a plain number is accepted where text is wanted.
#ifndef BEARING_JOBS_MESSAGE_READER_H_
#define BEARING_JOBS_MESSAGE_READER_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/yaml_tree.h"

namespace bearing::jobs {

// The name a field has in job files: its JSON name where that was chosen by hand, else the name in the .proto.
std::string FieldName(const google::protobuf::FieldDescriptor& field);

// The field that `key` names in any spelling; nullptr if there is none.
const google::protobuf::FieldDescriptor* FindField(const google::protobuf::Descriptor& descriptor, std::string_view key);

// "unknown key; did you mean ...?" for a key that `descriptor` lacks. `root` is searched for fields of other groups by that
// name.
std::string UnknownKeyMessage(const google::protobuf::Descriptor& descriptor, const google::protobuf::Descriptor& root,
                              std::string_view key);

class MessageReader {
 public:
  struct Problem {
    int line = 0;
    std::string field;
    std::string message;
  };

  // Reads `node`, a map, into `message`. Keys in `reserved` are skipped. Goes on after a mistake, so that all are found.
  void ReadMessage(const YamlNode& node, const std::string& path, const std::set<std::string>& reserved,
                   google::protobuf::Message& message);

  // Reads the value of one field, replacing what it holds.
  void ReadField(const YamlNode& node, const std::string& path, const google::protobuf::FieldDescriptor& field,
                 google::protobuf::Message& message);

  const std::vector<Problem>& problems() const { return problems_; }

 private:
  void ReadList(const YamlNode& node, const std::string& path, const google::protobuf::FieldDescriptor& field,
                google::protobuf::Message& message);
  void ReadMap(const YamlNode& node, const std::string& path, const google::protobuf::FieldDescriptor& field,
               google::protobuf::Message& message);
  // Sets (or, for a repeated field, adds) a single value.
  void ReadValue(const YamlNode& node, const std::string& path, const google::protobuf::FieldDescriptor& field,
                 google::protobuf::Message& message);
  void Wrong(const YamlNode& node, const std::string& path, std::string_view expected);

  const google::protobuf::Descriptor* root_ = nullptr;
  std::vector<Problem> problems_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_MESSAGE_READER_H_
