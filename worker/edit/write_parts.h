// Makes and writes a rank's parts: several threads, each with one part in hand from reading to writing, so that reads,
// arithmetic and writes of different parts overlap. Memory is bounded by `memory_bytes` of parts in hand.
#ifndef BEARING_WORKER_EDIT_WRITE_PARTS_H_
#define BEARING_WORKER_EDIT_WRITE_PARTS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/memory_rules.h"
#include "worker/edit/parts.h"
#include "worker/edit/tensor_editor.h"

namespace bearing::edit {

// Takes a part (by its number); called from several threads, for parts that do not overlap. The memory is a
// sharding::DirectBuffer of the part's offset, so that a local file can be written directly.
using PartSink = std::function<absl::Status(size_t part, absl::Span<const char> bytes, uint64_t checksum)>;

// Is the part there already, with what checksum? May use `memory`, which is of the part's size. Called from several threads.
using KeepPart = std::function<std::optional<uint64_t>(size_t part, absl::Span<char> memory)>;

struct WriteOptions {
  int threads = 3;
  int64_t memory_bytes = sharding::kEditMemoryBytes;
  KeepPart keep;  // Parts that are there are neither made nor given to the sink.
  // After each part, with the bytes of all parts so far; a bad status stops. Called by one thread at a time.
  std::function<absl::Status(int64_t)> progress;
};

// A fast sum over bytes, however they are cut, that finds what was stored wrongly. Not against intent.
class Checksum {
 public:
  void Update(absl::Span<const char> bytes);
  uint64_t Finish();

 private:
  static constexpr size_t kBlockBytes = 32;
  void AddBlocks(const char* blocks, size_t count);

  std::array<uint64_t, 4> chains_ = {1, 2, 3, 4};
  std::array<char, kBlockBytes> rest_ = {};
  size_t rest_size_ = 0;
  uint64_t size_ = 0;
};

// Fills `out` with the bytes of a part.
absl::Status MakePart(const sharding::WeightFiles& source, const EditPlan& plan, const Part& part, TensorEditor& editor,
                      absl::Span<char> out);

// The checksums of the parts, in order.
absl::StatusOr<std::vector<uint64_t>> WriteParts(const sharding::WeightFiles& source, const EditPlan& plan,
                                                 const std::vector<Part>& parts, PartRange range, TensorEditor& editor,
                                                 const PartSink& sink, const WriteOptions& options);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_WRITE_PARTS_H_
