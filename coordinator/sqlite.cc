#include "coordinator/sqlite.h"

#include <sqlite3.h>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

absl::StatusCode CodeOf(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_IOERR:
      return absl::StatusCode::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_CONSTRAINT:
      return absl::StatusCode::kAlreadyExists;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status ErrorOf(sqlite3* connection, int result, std::string_view doing) {
  return absl::Status(CodeOf(result), Concat("job store: ", doing, " failed: ", sqlite3_errmsg(connection), " (sqlite code ",
                                             sqlite3_extended_errcode(connection), ")"));
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

// A failed bind leaves the parameter NULL, which every column of the schema refuses: the error surfaces in Step.
Statement& Statement::Bind(int index, int64_t value) {
  sqlite3_bind_int64(statement_.get(), index, value);
  return *this;
}

Statement& Statement::BindText(int index, std::string_view value) {
  sqlite3_bind_text64(statement_.get(), index, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}

Statement& Statement::BindBlob(int index, std::string_view value) {
  sqlite3_bind_blob64(statement_.get(), index, value.data(), value.size(), SQLITE_STATIC);
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return ErrorOf(sqlite3_db_handle(statement_.get()), result, sqlite3_sql(statement_.get()));
}

void Statement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::string Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size);
}

void Database::Close::operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  sqlite3* connection = nullptr;
  int result =
      sqlite3_open_v2(path.c_str(), &connection, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  // Even a failed open hands out a connection, which carries the message.
  std::unique_ptr<Database> database(new Database(connection));
  if (result != SQLITE_OK) return ErrorOf(connection, result, Concat("opening ", path));
  return database;
}

absl::Status Database::Execute(const std::string& sql) {
  int result = sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) return ErrorOf(connection_.get(), result, sql);
  return absl::OkStatus();
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  int result = sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (result != SQLITE_OK) return ErrorOf(connection_.get(), result, sql);
  return Statement(statement);
}

absl::StatusOr<std::string> Database::QueryText(std::string_view sql) {
  BEARING_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  BEARING_ASSIGN_OR_RETURN(bool row, statement.Step());
  return row ? statement.Bytes(0) : std::string();
}

int64_t Database::changes() const { return sqlite3_changes64(connection_.get()); }
int64_t Database::last_insert_id() const { return sqlite3_last_insert_rowid(connection_.get()); }

absl::StatusOr<std::unique_ptr<Transaction>> Transaction::Begin(Database* database) {
  BEARING_RETURN_IF_ERROR(database->Execute("BEGIN IMMEDIATE"));
  return std::unique_ptr<Transaction>(new Transaction(database));
}

Transaction::~Transaction() {
  // SQLite has rolled back by itself after some errors; a second rollback then fails and changes nothing.
  if (open_) database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() {
  BEARING_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  open_ = false;
  return absl::OkStatus();
}

}  // namespace bearing::coordinator
