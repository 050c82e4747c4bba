// A JSON Schema (draft 2020-12) of job files, for editors and for programs that write them. Made from the protobuf descriptors
// and the comments of job.proto; what every job must have comes from the job file's own checks.
//
// It accepts what the reader of job files accepts in form: keys as in job.proto or in lowerCamel, null for an unset field,
// numbers where text is wanted. Ranges and rules over several fields are not in it: `bearing validate` knows them.
#ifndef BEARING_CLI_JOB_SCHEMA_H_
#define BEARING_CLI_JOB_SCHEMA_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace bearing::cli {

// Text fields that take a few words only: "Message.field" and the words. The checks in jobs/ have the last word; a test holds
// both together.
struct FieldWords {
  std::string_view field;
  std::vector<std::string> words;
};
std::vector<FieldWords> JobFieldWords();

nlohmann::ordered_json JobSchema();

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOB_SCHEMA_H_
