// Which prompts' completions a report shows: all of a small set; of a large one a sample, so that pages and memory do not grow
// with the set. The same completions give the same sample. Pure; thread-safe.
#ifndef BEARING_JOBS_REPORT_COMPLETION_SAMPLE_H_
#define BEARING_JOBS_REPORT_COMPLETION_SAMPLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bearing::jobs {

// Prompts of a side that are shown at the most, and bytes of a text.
inline constexpr size_t kShownPrompts = 200;
inline constexpr size_t kShownBytes = 8192;

// What makes a prompt worth looking at, or'ed.
enum PromptMark : uint8_t {
  kJudgesDiffer = 1,  // On one of its completions, the concept's side of every verdict considered.
  kStillShows = 2,    // It shows the concept where it should not: with the direction ablated, or a negative prompt unchanged.
};

// Of one side.
struct ShownPrompts {
  size_t prompts = 0, shown = 0;
  size_t judges_differ = 0, still_shows = 0;  // Of all prompts.
};

// Indices of at most `limit` prompts, ascending. Of more, half of the places go to those on which judges differ, a quarter to
// others that still show the concept, the rest to those without a mark, as far as there are as many; each kind is evenly
// spaced.
std::vector<size_t> ChoosePrompts(const std::vector<uint8_t>& marks, size_t limit);

// The text's beginning, where it is longer than `limit` bytes, cut before a character and with "[...]" behind it.
std::string Shortened(std::string text, size_t limit);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_COMPLETION_SAMPLE_H_
