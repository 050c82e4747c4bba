// The judges of a job: what its file says, with presets and defaults filled in. Pure functions of the spec.
#ifndef BEARING_JOBS_JUDGE_JUDGE_SETTINGS_H_
#define BEARING_JOBS_JUDGE_JUDGE_SETTINGS_H_

#include <string>
#include <vector>

#include "bearing/v1/job.pb.h"
#include "jobs/job_spec.h"

namespace bearing::jobs {

// Names of the judges that need no entry in the file: concept.markers, and the metric at 0.
inline constexpr char kMarkersJudge[] = "markers";
inline constexpr char kMetricJudge[] = "metric";

// Fills the unset fields of each entry of `judges`. Part of ApplyDefaults.
void ApplyJudgeDefaults(bearing::v1::JobSpec& spec);

// Checks that need no files. Part of ValidateFields.
void ValidateJudges(const bearing::v1::JobSpec& spec, std::vector<FieldViolation>& violations);

// All judges of the job in their order: the markers where there are any, the entries of the file, the metric. The first one
// says whether a completion shows the concept. `spec` has its defaults.
std::vector<bearing::v1::Judge> JudgesOf(const bearing::v1::JobSpec& spec);

// What a verdict of yes says, for people: "refusal", "unsafe".
std::string WhatItFinds(const bearing::v1::Judge& judge, const std::string& concept_name);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_JUDGE_SETTINGS_H_
