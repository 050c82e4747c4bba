// The six prompt sources of a job, as one list to loop over. Stateless.
#ifndef BEARING_JOBS_PROMPT_FIELDS_H_
#define BEARING_JOBS_PROMPT_FIELDS_H_

#include <array>
#include <string>

#include "bearing/v1/job.pb.h"

namespace bearing::jobs {

struct PromptField {
  const char* side;  // "positive" or "negative"
  const char* set;   // "train", "validation" or "test"
  // "prompts.positive.train"
  std::string Path() const;
};

// Positive before negative; train, validation, test within a side.
std::array<PromptField, 6> PromptFields();

// nullptr when the job does not mention the source.
const bearing::v1::PromptSource* FindSource(const bearing::v1::JobSpec& spec, const PromptField& field);

// Makes the source (and its side) present.
bearing::v1::PromptSource& MutableSource(bearing::v1::JobSpec& spec, const PromptField& field);

// Is the source read at all? The test sets are not when evaluation is skipped and they are not given.
bool IsUsed(const bearing::v1::JobSpec& spec, const PromptField& field);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PROMPT_FIELDS_H_
