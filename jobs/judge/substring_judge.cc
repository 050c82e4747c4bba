#include "jobs/judge/substring_judge.h"

#include "jobs/judge/response_text.h"

namespace bearing::jobs {

void SubstringJudge::Add(const std::string& marker) { markers_.push_back({marker, FoldForMatching(marker)}); }

const std::string& SubstringJudge::Match(std::string_view response) const {
  static const std::string kNone;
  const std::string folded = FoldForMatching(response);
  for (const Marker& marker : markers_) {
    if (folded.find(marker.folded) != std::string::npos) return marker.given;
  }
  return kNone;
}

}  // namespace bearing::jobs
