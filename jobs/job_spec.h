// Job files: YAML, JSON or protobuf text to JobSpec, defaults, validation.
#ifndef BEARING_JOBS_JOB_SPEC_H_
#define BEARING_JOBS_JOB_SPEC_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::jobs {

// A field that is wrong: path as in the job file ("prompts.positive.train.file") and what was expected.
struct FieldViolation {
  std::string field;
  std::string message;
};

// Parses the text of a job file (`source` is its name, for messages, and for the form: see text_job.h; others are YAML, of
// which JSON is a part). Needs `apiVersion: bearing/v1` and `kind: Job`, but in protobuf text. Unknown keys, wrong types,
// duplicate keys are InvalidArgument with the line, and "did you mean" for a key. Files over 1 MiB, or with more than 100
// aliases, are refused.
absl::StatusOr<bearing::v1::JobSpec> ParseJobFile(std::string_view text, std::string_view source);

// ParseJobFile of a file, with every relative path in it resolved against the file's folder; `output` against the current
// folder.
absl::StatusOr<bearing::v1::JobSpec> LoadJobFile(const std::string& path);

// Sets one field by its path from text: "select.kl_max=0.2", "ranks=4", "model.path=/m" (for --set). InvalidArgument naming it.
absl::Status SetField(bearing::v1::JobSpec& spec, std::string_view assignment);

// Of `ranks` ranks, those that hold one copy of the model together.
int TensorParallel(const bearing::v1::JobSpec& spec, int ranks);

// Fills every unset field with its default.
void ApplyDefaults(bearing::v1::JobSpec& spec);

// Checks that need no files: names, ranges, required fields. Empty = valid.
std::vector<FieldViolation> ValidateFields(const bearing::v1::JobSpec& spec);

// Checks of files, before any long work: prompt files load and are not empty, sets of one side do not share prompts, positive
// and negative do not share prompts, the output folder can be used (absent, empty, or an unfinished run of the same spec).
// Violations name field and file. Does not look at the model (the coordinator does).
std::vector<FieldViolation> ValidateFiles(const bearing::v1::JobSpec& spec);

// "field: message; field: message" as one InvalidArgument, with a google.rpc.BadRequest as payload; Ok when empty.
absl::Status ToStatus(const std::vector<FieldViolation>& violations);

// sha256 (hex) of the canonical JSON of the spec without what the results do not depend on (name, labels,
// output, ranks, tensor_parallel, priority, max_attempts), with the sha256 of
// each prompt file in place of its path: what a stage's artifact depends on.
absl::StatusOr<std::string> SpecDigest(const bearing::v1::JobSpec& spec);

// The same without what only later stages read: two jobs of one model and layout with this digest in common get the same bytes
// from `stage`, which is collect, select or evaluate (InvalidArgument for others).
absl::StatusOr<std::string> StageDigest(const bearing::v1::JobSpec& spec, bearing::v1::Stage stage);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JOB_SPEC_H_
