// From a job file and flags to a job specification that has passed its checks.
#ifndef BEARING_CLI_SPEC_SOURCE_H_
#define BEARING_CLI_SPEC_SOURCE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::cli {

// Of `run` and `plan`, where neither flag nor job file says.
inline constexpr int kDefaultRanks = 2;

struct SpecOptions {
  std::string file;               // "-": standard input.
  std::vector<std::string> sets;  // "select.kl_max=0.2"
  std::string model;              // Replaces model.path; empty = as in the file.
  std::string output;             // Likewise.
  int ranks = 0;                  // Likewise.
  int tensor_parallel = 0;        // Likewise.
};

// Reads the file, applies the flags, makes every path absolute (flags: from the current folder), fills the defaults and checks
// the fields. InvalidArgument or NotFound for a file that cannot be used.
absl::StatusOr<bearing::v1::JobSpec> LoadSpec(const SpecOptions& options);

// Checks what the job names on this machine: prompt files, output folder, model and how it divides over `ranks`, tokenizer,
// chat template and concept tokens.
absl::Status CheckFiles(const bearing::v1::JobSpec& spec, int ranks);

}  // namespace bearing::cli

#endif  // BEARING_CLI_SPEC_SOURCE_H_
