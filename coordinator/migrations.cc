#include "coordinator/migrations.h"

#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {

std::vector<std::string> SchemaMigrations() {
  return {
      // `job` is the serialized bearing.v1.Job; the other columns are what queries look at. States 4, 5, 6 are final.
      R"sql(
        CREATE TABLE jobs (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          name TEXT NOT NULL UNIQUE,
          state INTEGER NOT NULL,
          ranks INTEGER NOT NULL,
          attempt INTEGER NOT NULL,
          sequence INTEGER NOT NULL,
          group_id TEXT NOT NULL,
          job BLOB NOT NULL
        ) STRICT;
        CREATE INDEX jobs_by_state ON jobs (state, id);
        CREATE TRIGGER jobs_final_stays BEFORE UPDATE ON jobs WHEN OLD.state IN (4, 5, 6)
          BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END;
        CREATE TABLE requests (
          request_id TEXT PRIMARY KEY,
          body_hash TEXT NOT NULL,
          job_id INTEGER NOT NULL REFERENCES jobs (id)
        ) STRICT, WITHOUT ROWID;
      )sql",
  };
}

absl::Status Migrate(Database* database, const std::vector<std::string>& migrations) {
  BEARING_ASSIGN_OR_RETURN(std::string text, database->QueryText("PRAGMA user_version"));
  int64_t version = 0;
  if (!absl::SimpleAtoi(text, &version) || version < 0) {
    return absl::DataLossError(absl::StrCat("job store: unreadable schema version: user_version=", text));
  }
  const int64_t known = static_cast<int64_t>(migrations.size());
  if (version > known) {
    return absl::FailedPreconditionError(
        absl::StrCat("job store was written by a newer version of Bearing: schema=", version, " newest known=", known));
  }
  for (; version < known; ++version) {
    BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Transaction> transaction, Transaction::Begin(database));
    BEARING_RETURN_IF_ERROR(database->Execute(migrations[version]));
    BEARING_RETURN_IF_ERROR(database->Execute(absl::StrCat("PRAGMA user_version = ", version + 1)));
    BEARING_RETURN_IF_ERROR(transaction->Commit());
  }
  return absl::OkStatus();
}

}  // namespace bearing::coordinator
