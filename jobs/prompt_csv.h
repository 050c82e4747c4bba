// CSV as in RFC 4180, read strictly: a file that spreadsheet programs would guess about is an error with its line.
#ifndef BEARING_JOBS_PROMPT_CSV_H_
#define BEARING_JOBS_PROMPT_CSV_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

struct CsvRecord {
  size_t line = 0;  // 1-based line the record starts on.
  std::vector<std::string> fields;
};

// All records, the header first; every one has as many fields as the first. Lines end in LF or CRLF, the last may lack it.
// InvalidArgument "line N: ..." for a quote inside an unquoted field, text after a closing quote, a quote that is never closed,
// a lone CR, or a record with another number of fields.
absl::StatusOr<std::vector<CsvRecord>> ParseCsv(std::string_view text);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PROMPT_CSV_H_
