// Sizes and times as people write them.
#ifndef BEARING_CLI_QUANTITY_H_
#define BEARING_CLI_QUANTITY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace bearing::cli {

// "80GiB", "50GB", "512MiB", "2.5TB", "1000" (bytes): powers of 1024 with the i, of 1000 without. InvalidArgument otherwise.
absl::StatusOr<double> ParseBytes(const std::string& text);

// "0 B", "512 KiB", "1.53 GiB": three digits.
std::string FormatBytes(double bytes);

// "3.1 s", "4 min 10 s", "2 h 5 min", "12 d 3 h".
std::string FormatDuration(double seconds);

// "1.23 k", "45.6 M", "7.89 G", "12.3 T", "4.56 P": three digits; small numbers as they are.
std::string FormatCount(double count);

}  // namespace bearing::cli

#endif  // BEARING_CLI_QUANTITY_H_
