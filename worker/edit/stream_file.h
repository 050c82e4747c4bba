// Makes one file of the copy from front to back, for a place that takes bytes in order only: an upload. Parts are made ahead by
// several threads, as far as memory allows.
#ifndef BEARING_WORKER_EDIT_STREAM_FILE_H_
#define BEARING_WORKER_EDIT_STREAM_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/memory_rules.h"
#include "worker/edit/file_meter.h"
#include "worker/edit/parts.h"
#include "worker/edit/tensor_editor.h"

namespace bearing::edit {

// Takes the next bytes; called on the caller's thread.
using ByteSink = std::function<absl::Status(absl::Span<const char> bytes)>;

struct StreamOptions {
  int threads = 3;
  int64_t memory_bytes = sharding::kEditMemoryBytes;  // Of parts that are made or wait to be taken.
  FileMeter* meter = nullptr;                         // Sees the bytes too, beside the sink.
  std::function<absl::Status(int64_t)> progress;      // After each part, with the bytes so far; a bad status stops.
};

// `parts` [range.begin, range.end) are all of one file, in order. The first error of maker, meter, sink or progress.
absl::Status StreamFile(const sharding::WeightFiles& source, const EditPlan& plan, const std::vector<Part>& parts,
                        PartRange range, TensorEditor& editor, const ByteSink& sink, const StreamOptions& options);

// The bytes of a tensor of the copy, made for a FileMeter. `editor` should not be the one that makes the file: what
// re-quantization cost would count twice.
absl::StatusOr<std::string> MakeTensor(const sharding::WeightFiles& source, const EditPlan& plan, size_t tensor,
                                       TensorEditor& editor);

// The parts of a file: neighbours.
PartRange PartsOfFile(const std::vector<Part>& parts, size_t file);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_STREAM_FILE_H_
