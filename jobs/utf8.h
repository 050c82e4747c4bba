// UTF-8 checks. Stateless functions.
#ifndef BEARING_JOBS_UTF8_H_
#define BEARING_JOBS_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace bearing::jobs {

// Offset of the first byte that is not part of a well-formed sequence (no overlong forms, no surrogates, at most U+10FFFF);
// npos when the text is valid.
size_t FirstInvalidUtf8(std::string_view text);

// The text with U+FFFD for each byte that is not part of a well-formed sequence.
std::string ReplaceInvalidUtf8(std::string_view text);

// 1-based line of the byte at `offset`.
size_t LineOfOffset(std::string_view text, size_t offset);

// The first `max_characters` code points, with "…" when something was cut. `text` must be valid.
std::string Shorten(std::string_view text, size_t max_characters);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_UTF8_H_
