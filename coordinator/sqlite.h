// A thin owner of one SQLite connection and its statements: errors become absl::Status, nothing throws.
//
// Codes: ResourceExhausted (disk full), Unavailable (locked by another process, I/O error), DataLoss (corrupt),
// AlreadyExists (a constraint), FailedPrecondition (cannot open, read-only), Internal (anything else).
// Not thread-safe.
#ifndef BEARING_COORDINATOR_SQLITE_H_
#define BEARING_COORDINATOR_SQLITE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace bearing::coordinator {

// Finalized on destruction; must not outlive its Database.
class Statement {
 public:
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  // Parameters count from 1, columns from 0. A text or blob must stay alive until the last Step.
  Statement& Bind(int index, int64_t value);
  Statement& BindText(int index, std::string_view value);
  Statement& BindBlob(int index, std::string_view value);

  // True: a row is there. False: done.
  absl::StatusOr<bool> Step();

  // Ready to be bound and stepped again.
  void Reset();

  int64_t Int(int column) const;
  std::string Bytes(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Database {
 public:
  // Opens or makes the file.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path);

  // Runs statements that return no rows that matter.
  absl::Status Execute(const std::string& sql);
  absl::StatusOr<Statement> Prepare(std::string_view sql);
  // The first column of the only row, e.g. of a PRAGMA.
  absl::StatusOr<std::string> QueryText(std::string_view sql);

  // Rows that the last statement changed; rowid of the last insert.
  int64_t changes() const;
  int64_t last_insert_id() const;

 private:
  struct Close {
    void operator()(sqlite3* connection) const;
  };
  explicit Database(sqlite3* connection) : connection_(connection) {}
  std::unique_ptr<sqlite3, Close> connection_;
};

// Rolls back on destruction unless committed.
class Transaction {
 public:
  static absl::StatusOr<std::unique_ptr<Transaction>> Begin(Database* database);
  ~Transaction();
  absl::Status Commit();

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;
  bool open_ = true;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SQLITE_H_
