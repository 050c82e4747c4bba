#include "jobs/prompt_csv.h"

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

class CsvReader {
 public:
  explicit CsvReader(std::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<CsvRecord>> ReadAll() {
    std::vector<CsvRecord> records;
    while (at_ < text_.size()) {
      BEARING_ASSIGN_OR_RETURN(CsvRecord record, ReadRecord());
      if (!records.empty() && record.fields.size() != records.front().fields.size()) {
        return Error(record.line, Concat("wrong number of fields: found=", record.fields.size(),
                                         " named in the first line=", records.front().fields.size()));
      }
      records.push_back(std::move(record));
    }
    return records;
  }

 private:
  static absl::Status Error(size_t line, std::string_view message) {
    return absl::InvalidArgumentError(Concat("line ", line, ": ", message));
  }

  bool AtLineEnd() const {
    return at_ >= text_.size() || text_[at_] == '\n' || (text_[at_] == '\r' && text_.substr(at_, 2) == "\r\n");
  }

  void SkipLineEnd() {
    if (at_ >= text_.size()) return;
    at_ += text_[at_] == '\r' ? 2 : 1;
    ++line_;
  }

  absl::StatusOr<CsvRecord> ReadRecord() {
    CsvRecord record;
    record.line = line_;
    while (true) {
      const bool quoted = at_ < text_.size() && text_[at_] == '"';
      BEARING_ASSIGN_OR_RETURN(std::string field, quoted ? ReadQuoted() : ReadPlain());
      record.fields.push_back(std::move(field));
      if (AtLineEnd()) {
        SkipLineEnd();
        return record;
      }
      ++at_;  // The comma.
    }
  }

  absl::StatusOr<std::string> ReadPlain() {
    std::string field;
    for (; !AtLineEnd() && text_[at_] != ','; ++at_) {
      if (text_[at_] == '"') return Error(line_, "a quote inside a field that is not quoted");
      if (text_[at_] == '\r') return Error(line_, "a carriage return without a line feed");
      field += text_[at_];
    }
    return field;
  }

  absl::StatusOr<std::string> ReadQuoted() {
    const size_t first_line = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] != '"') {
        if (text_[at_] == '\n') ++line_;
        field += text_[at_];
      } else if (text_.substr(at_ + 1, 1) == "\"") {
        field += text_[++at_];
      } else {
        ++at_;
        if (AtLineEnd() || text_[at_] == ',') return field;
        return Error(line_, "text after the closing quote of a field");
      }
    }
    return Error(first_line, "a quoted field is never closed");
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<CsvRecord>> ParseCsv(std::string_view text) { return CsvReader(text).ReadAll(); }

}  // namespace bearing::jobs
