// What a search works on: a finished run (its direction, means and metric), the model, and the prompts.
#ifndef BEARING_WORKER_SEARCH_SEARCH_INPUTS_H_
#define BEARING_WORKER_SEARCH_SEARCH_INPUTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "jobs/prompt_set.h"
#include "storage/model_source.h"
#include "worker/job_context.h"
#include "worker/search/search_options.h"

namespace bearing::worker {

// On every rank, but where it says otherwise.
struct SearchInputs {
  std::unique_ptr<storage::ModelSource> model;
  std::unique_ptr<sharding::CheckpointReader> reader;
  JobContext context;                          // Of the run's job, with the model and the tokenizer; without an output folder.
  steer::Rows positive, negative;              // Validation prompts that the run kept.
  std::vector<jobs::Prompt> positive_prompts;  // Rank 0.
  std::vector<int32_t> metric_tokens;
  at::Tensor difference_LD, negative_mean_LD;  // fp64, of the position.
  int64_t layer = 0;                           // Of the run's direction.
  int position = -1;                           // That is searched.
};

// Collective; agreed errors, which name the file of the run that is missing, changed or of another model.
absl::Status LoadSearchInputs(comm::Communicator& comm, const SearchOptions& options, JobObserver* observer,
                              SearchInputs& inputs);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_INPUTS_H_
