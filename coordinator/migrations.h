// The schema of the job store as the list of steps that led to it. PRAGMA user_version counts the steps a file has had.
#ifndef BEARING_COORDINATOR_MIGRATIONS_H_
#define BEARING_COORDINATOR_MIGRATIONS_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/sqlite.h"

namespace bearing::coordinator {

// One step: statements, then what SQL alone cannot do (empty = nothing), then the statements that finish it.
struct Migration {
  Migration(const char* statements) : sql(statements) {}  // NOLINT(google-explicit-constructor): lists of texts are steps.
  Migration(std::string statements, std::function<absl::Status(Database*)> rows, std::string last)
      : sql(std::move(statements)), fill(std::move(rows)), finish(std::move(last)) {}

  std::string sql;
  std::function<absl::Status(Database*)> fill;
  std::string finish;
};

// Released steps never change; a new schema is a new step at the end.
std::vector<Migration> SchemaMigrations();

// Brings the file up to date, each step in a transaction of its own together with its user_version. FailedPrecondition when
// the file has had more steps than are known (written by a newer version).
absl::Status Migrate(Database* database, const std::vector<Migration>& migrations);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_MIGRATIONS_H_
