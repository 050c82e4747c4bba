// `trace`: token ids, every layer's last-token residual and the last-position logits of some prompts, in one safetensors file,
// so that any other tool can check ours.
//
// Tensors: residual [n, L + 1, d_model] (block inputs, then the final norm's input) and logits [n, V], fp32;
// token_ids [n, longest] (-1 behind the end of shorter rows) and lengths [n], I64.
#ifndef BEARING_WORKER_TRACE_H_
#define BEARING_WORKER_TRACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/edit/strength_flags.h"

namespace bearing::worker {

struct TraceOptions {
  std::string model;
  std::string prompts;    // A prompt file, or
  std::string token_ids;  // a JSON list of lists of ids.
  std::string out;
  std::string dtype = "float32";
  std::string ablate;             // Direction file; empty = none.
  edit::StrengthFlags strengths;  // Of the ablation.
  std::string add;                // Direction file; empty = none.
  int64_t layer = -1;             // Of the addition.
  std::string gemm;               // Path of the products; empty = measured.
};

// Collective.
absl::Status RunTrace(comm::Communicator& comm, const TraceOptions& options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_TRACE_H_
