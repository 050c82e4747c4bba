// What the stages evaluate and judge share: the conditions under which test prompts are completed, and the record of the
// completions below the output folder.
#ifndef BEARING_WORKER_STAGES_EVALUATION_H_
#define BEARING_WORKER_STAGES_EVALUATION_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/job_context.h"

namespace bearing::worker {

// In the order of completions.jsonl; a record names its condition by the index.
struct Condition {
  const char* side;
  const char* intervention;
  bool is_positive() const { return side[0] == 'p'; }
};
inline constexpr Condition kConditions[] = {{"positive", "baseline"},
                                            {"positive", "ablation"},
                                            {"negative", "baseline"},
                                            {"negative", "ablation"},
                                            {"negative", "addition"}};

inline constexpr char kCompletionsFolder[] = ".bearing/evaluate";
// What the records belong to, and how rows were cut into waves.
inline constexpr char kCompletionsPlan[] = ".bearing/evaluate/plan.json";

// Of a replica, relative to the output folder.
std::string CompletionsFile(int replica);

// Those that are there, relative to the output folder, in the order of replicas. Rank 0.
std::vector<std::string> CompletionsFiles(const JobContext& context);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_EVALUATION_H_
