#include "jobs/report/completion_sample.h"

#include <algorithm>
#include <numeric>

namespace bearing::jobs {
namespace {

void TakeEvenly(const std::vector<size_t>& from, size_t count, std::vector<size_t>& chosen) {
  for (size_t i = 0; i < count; ++i) chosen.push_back(from[i * from.size() / count]);
}

}  // namespace

std::vector<size_t> ChoosePrompts(const std::vector<uint8_t>& marks, size_t limit) {
  std::vector<size_t> chosen;
  if (marks.size() <= limit) {
    chosen.resize(marks.size());
    std::iota(chosen.begin(), chosen.end(), size_t{0});
    return chosen;
  }
  std::vector<size_t> differ, show, others;
  for (size_t i = 0; i < marks.size(); ++i) {
    ((marks[i] & kJudgesDiffer) != 0 ? differ : (marks[i] & kStillShows) != 0 ? show : others).push_back(i);
  }
  size_t of_differ = std::min(differ.size(), limit / 2);
  size_t of_show = std::min(show.size(), limit / 4);
  const size_t of_others = std::min(others.size(), limit - of_differ - of_show);
  // Places that are left go to the marked ones.
  of_show = std::min(show.size(), limit - of_differ - of_others);
  of_differ = std::min(differ.size(), limit - of_show - of_others);
  TakeEvenly(differ, of_differ, chosen);
  TakeEvenly(show, of_show, chosen);
  TakeEvenly(others, of_others, chosen);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::string Shortened(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return text + " [...]";
}

}  // namespace bearing::jobs
