// A judge's model run over completions, through the same decoder as everything else.
#ifndef BEARING_WORKER_STAGES_MODEL_JUDGE_H_
#define BEARING_WORKER_STAGES_MODEL_JUDGE_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "jobs/judge/judge_prompt.h"
#include "sharding/posix_file.h"
#include "worker/job_context.h"

namespace bearing::worker {

// Of one completion: probabilities that the judge's first token is one of its yes tokens, and of its no tokens. Both NaN: the
// judge's context is too short for it.
struct JudgeScore {
  double yes = 0;
  double no = 0;

  // The probability of yes where it is yes or no.
  double probability() const { return yes / (yes + no); }
};

// The scores of a judge, 16 bytes each, in the order of completions; what is there when a run is interrupted is kept. Rank 0.
class JudgeScores {
 public:
  // `path` without extension; PATH.json says what the scores in PATH.bin belong to. Those of something else are dropped.
  static absl::StatusOr<JudgeScores> Open(const std::string& path, const nlohmann::json& identity);

  // Scores that Open has seen before in this run.
  static absl::StatusOr<JudgeScores> Reopen(const std::string& path);

  int64_t count() const { return count_; }
  absl::Status Truncate(int64_t count);
  absl::Status Append(const std::vector<JudgeScore>& scores);  // And syncs.
  absl::StatusOr<JudgeScore> Get(int64_t index) const;

 private:
  std::string path_;
  sharding::FileDescriptor file_;
  int64_t count_ = 0;
};

struct JudgeModelJob {
  const bearing::v1::Judge* judge = nullptr;
  int64_t completions = 0;
  std::string path;                                                       // Of the scores. Rank 0.
  nlohmann::json subject;                                                 // What is judged; other scores do not count. Rank 0.
  std::function<absl::StatusOr<jobs::Exchange>(int64_t index)> exchange;  // Rank 0.
};

// Scores the completions that have none yet, 512 at a time. The job's decoder must have been dropped; the judge's is loaded if
// there is something to do, and dropped at the end. Returns what evaluation.json says of the model (rank 0). Collective.
absl::StatusOr<nlohmann::json> RunModelJudge(JobContext& context, const JudgeModelJob& job);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_MODEL_JUDGE_H_
