// What goes to standard output: tables for people, JSON (the proto3 JSON mapping) or YAML for programs, names for pipes.
#ifndef BEARING_CLI_OUTPUT_H_
#define BEARING_CLI_OUTPUT_H_

#include <google/protobuf/message.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bearing/v1/job.pb.h"

namespace bearing::cli {

enum class OutputFormat { kTable, kJson, kYaml, kName };

// Of "table", "json", "yaml" or "name"; any other text is kTable (the command line has checked it).
OutputFormat ParseOutputFormat(std::string_view name);

// The proto3 JSON mapping, fields without a value included, indented, with a newline at the end.
absl::StatusOr<std::string> ToJsonText(const google::protobuf::Message& message);

// The same as YAML.
std::string JsonToYaml(const nlohmann::json& value);

// A message or, for several jobs, {"jobs": [...]}, in kJson or kYaml.
absl::StatusOr<std::string> Encode(const google::protobuf::Message& message, OutputFormat format);

// Columns as wide as their widest cell, two spaces between; rows[0] is the heading. Cells are ASCII or counted by character.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// One job a row, for `list`.
std::string FormatJobTable(const std::vector<bearing::v1::Job>& jobs, absl::Time now);

// All about a job, for `describe`, with the next useful command at the end.
std::string FormatJobDetails(const bearing::v1::Job& job, absl::Time now);

// Prints one job in the format to standard output; `table` is what kTable shows.
absl::Status PrintJob(const bearing::v1::Job& job, OutputFormat format, std::string_view table);

}  // namespace bearing::cli

#endif  // BEARING_CLI_OUTPUT_H_
