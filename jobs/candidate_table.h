// Scored candidates from a file, to choose again without running anything.
#ifndef BEARING_JOBS_CANDIDATE_TABLE_H_
#define BEARING_JOBS_CANDIDATE_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "jobs/selection.h"

namespace bearing::jobs {

struct CandidateTable {
  std::vector<Candidate> candidates;
  SelectionRule rule;  // The one the table was made with; the reference's defaults where the file has none.
  std::string folder;  // Of the run that the table belongs to; empty for a file of the reference implementation.
  std::map<std::string, std::string> direction_metadata;  // What direction.safetensors of the run says beside its scores.
};

// `path`: the output folder of a job, its candidates.json, or direction_evaluations.json of the reference implementation (a
// list of {position, layer, refusal_score, steering_score, kl_div_score}), which does not say how many layers the model has:
// `num_layers` then must (0 = the file knows). NotFound, or InvalidArgument naming file and entry.
absl::StatusOr<CandidateTable> LoadCandidateTable(const std::string& path, int64_t num_layers);

// Writes the direction of a candidate (unit vector and mean difference, as select does) from means.safetensors of the run.
// `path` must not exist yet. FailedPrecondition when the table belongs to no run.
absl::Status WriteDirectionOf(const CandidateTable& table, const Candidate& candidate, const std::string& path);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_CANDIDATE_TABLE_H_
