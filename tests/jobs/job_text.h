// A job file that is right in every field, for tests that then break one.
#ifndef BEARING_TESTS_JOBS_JOB_TEXT_H_
#define BEARING_TESTS_JOBS_JOB_TEXT_H_

namespace bearing::jobs {

inline constexpr char kGoodJob[] = R"(apiVersion: bearing/v1
kind: Job
name: refusal-demo
model:
  path: models/demo
  dtype: bfloat16
concept:
  name: refusal
  tokens: [I, "As", No]
prompts:
  positive:
    train: {file: p_train.json, count: 2}
    validation: {file: p_val.json}
    test: {file: p_test.json}
  negative:
    train: {file: n_train.json}
    validation: {file: n_val.json}
    test: {file: n_test.json}
  system: Be brief.
collect:
  filter: false
  max_batch: 8
select:
  complete: true
  kl_max: 0.2
  induce_min: -1
  prune_layers: 0
  when_none_passes: relax_kl
  layers: [1, 2]
  positions: [-1, -2]
evaluate:
  max_new_tokens: 16
  addition_factor: 1.5
edit:
  keep_tied: true
output: out/refusal
ranks: 2
labels:
  team: safety
  issue: 12
)";

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_JOB_TEXT_H_
