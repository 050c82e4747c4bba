// The schema of the job store as the list of steps that led to it. PRAGMA user_version counts the steps a file has had.
#ifndef BEARING_COORDINATOR_MIGRATIONS_H_
#define BEARING_COORDINATOR_MIGRATIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/sqlite.h"

namespace bearing::coordinator {

// Released steps never change; a new schema is a new step at the end.
std::vector<std::string> SchemaMigrations();

// Brings the file up to date, each step in a transaction of its own together with its user_version. FailedPrecondition when
// the file has had more steps than are known (written by a newer version).
absl::Status Migrate(Database* database, const std::vector<std::string>& migrations);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_MIGRATIONS_H_
