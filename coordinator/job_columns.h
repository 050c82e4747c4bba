// What the store's queries look at, taken out of a job: times as milliseconds, labels, the key of its model.
#ifndef BEARING_COORDINATOR_JOB_COLUMNS_H_
#define BEARING_COORDINATOR_JOB_COLUMNS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"
#include "coordinator/sqlite.h"

namespace bearing::coordinator {

// 0 for a time that is not set.
int64_t ToMilliseconds(const google::protobuf::Timestamp& time);
void SetMilliseconds(int64_t milliseconds, google::protobuf::Timestamp* time);

// Equal for jobs that can use one loaded model: address, compute type, residency and layout.
std::string ModelKey(const bearing::v1::JobSpec& spec);

absl::Status InsertLabels(Database* database, int64_t job_id, const bearing::v1::JobSpec& spec);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_COLUMNS_H_
