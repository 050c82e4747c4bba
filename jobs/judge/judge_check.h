// Judge models before any work: what would fail in the judge stage, hours later.
#ifndef BEARING_JOBS_JUDGE_JUDGE_CHECK_H_
#define BEARING_JOBS_JUDGE_JUDGE_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"

namespace bearing::jobs {

// Each judge's model opens, can be cut over `ranks` (0: not looked at), and its prompt and verdicts work with its tokenizer;
// the stop tokens are inside `vocab_size`, that of the job's model. `spec` has its defaults. The error names the field.
absl::Status CheckJudgeModels(const bearing::v1::JobSpec& spec, int ranks, int64_t vocab_size);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_JUDGE_CHECK_H_
