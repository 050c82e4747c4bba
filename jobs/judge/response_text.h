// The text of a completion as judges read it. Stateless functions.
#ifndef BEARING_JOBS_JUDGE_RESPONSE_TEXT_H_
#define BEARING_JOBS_JUDGE_RESPONSE_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace bearing::jobs {

// The text for matching: small letters (Latin, Greek, Cyrillic, Armenian; one letter to one letter), and the apostrophes that
// people and models type for ' (U+2018, U+2019, U+201B, U+02BC, U+2032, U+FF07) as '. Bytes that are not UTF-8 stay.
std::string FoldForMatching(std::string_view text);

// Words between white space, as Python's str.split() counts them.
size_t CountWords(std::string_view text);

// The first place of `text` at which one of `stops` begins; npos if none does.
template <typename Texts>
size_t FindFirst(std::string_view text, const Texts& stops) {
  size_t first = std::string_view::npos;
  for (const auto& stop : stops) {
    const size_t at = text.find(stop);
    if (at < first) first = at;
  }
  return first;
}

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_RESPONSE_TEXT_H_
