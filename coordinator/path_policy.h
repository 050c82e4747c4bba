// Where jobs may read and write: prefixes of folders and buckets.
//
// Paths are made canonical first (links followed, ".." resolved), and so are the prefixes; a link inside a model's or an
// output's folder that leads out is refused too. Every text of a job that starts like a path or an address counts as read,
// whatever its field, so that a new field is not a way around; `output` counts as written. Thread-safe.
#ifndef BEARING_COORDINATOR_PATH_POLICY_H_
#define BEARING_COORDINATOR_PATH_POLICY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::coordinator {

class PathPolicy {
 public:
  // Allows everything.
  PathPolicy() = default;

  // What may be written may be read too. InvalidArgument for a prefix that is neither an absolute path nor an address.
  static absl::StatusOr<PathPolicy> Create(const std::vector<std::string>& read, const std::vector<std::string>& write);

  // PermissionDenied "field: ..." for the first path outside.
  absl::Status Check(const bearing::v1::JobSpec& spec) const;

 private:
  bool everything_ = true;
  std::vector<std::string> read_;
  std::vector<std::string> write_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_PATH_POLICY_H_
