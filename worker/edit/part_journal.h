// What a rank has written so far, part by part, for a run that goes on where this one ended. A line a part; a line that was not
// written to its end is no line.
//
// The journal is not what is trusted: who keeps a part reads its bytes back and compares their checksum.
#ifndef BEARING_WORKER_EDIT_PART_JOURNAL_H_
#define BEARING_WORKER_EDIT_PART_JOURNAL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/posix_file.h"

namespace bearing::edit {

class PartJournal {
 public:
  // Goes on behind what is there.
  static absl::StatusOr<std::unique_ptr<PartJournal>> Open(const std::string& path);

  // Thread-safe. Not synced: what a crash of the machine loses is written again.
  absl::Status Add(size_t part, uint64_t checksum);

  // Checksums by part, of several journals. Other ranks may be writing them.
  static absl::StatusOr<std::map<size_t, uint64_t>> Read(const std::vector<std::string>& paths);

 private:
  PartJournal(sharding::FileDescriptor file, std::string path, int64_t end)
      : file_(std::move(file)), path_(std::move(path)), end_(end) {}

  const sharding::FileDescriptor file_;
  const std::string path_;
  std::mutex mutex_;  // Guards the one below.
  int64_t end_;
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_PART_JOURNAL_H_
