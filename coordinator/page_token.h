// The opaque mark of where a list goes on, bound to the filter it was made for.
#ifndef BEARING_COORDINATOR_PAGE_TOKEN_H_
#define BEARING_COORDINATOR_PAGE_TOKEN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/job_store.h"

namespace bearing::coordinator {

std::string MakePageToken(const JobFilter& filter, int64_t before_id);

// 0 for an empty token (= from the newest). InvalidArgument for a token that was not made here or for another filter.
absl::StatusOr<int64_t> ParsePageToken(const std::string& token, const JobFilter& filter);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_PAGE_TOKEN_H_
