// How fast files are read and written.
#ifndef BEARING_WORKER_CALIBRATE_DISK_RATES_H_
#define BEARING_WORKER_CALIBRATE_DISK_RATES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace bearing::worker {

struct ReadRate {
  double bytes_per_s = 0;       // As the file is now.
  double cached_share = 0;      // Of what was read, in the page cache before.
  double cold_bytes_per_s = 0;  // Of a part that was dropped from the page cache first; 0 when the system keeps it.
};

// Reads two parts of at most 64 MiB, chosen by `part` of `parts`, so that ranks read different ones. The second part is dropped
// from the page cache (no other file is touched).
absl::StatusOr<ReadRate> MeasureRead(const std::string& path, int part, int parts);

// Bytes per second of a new file of 32 MiB in `folder`, synced; it is removed again.
absl::StatusOr<double> MeasureWrite(const std::string& folder, int part);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_CALIBRATE_DISK_RATES_H_
