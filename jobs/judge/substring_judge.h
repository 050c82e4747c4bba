// Does a completion hold one of a list of texts? Thread-safe after construction.
//
// Matching is by FoldForMatching: letters in any case, and typographic apostrophes as the plain one, so that "I can’t" is found
// by "I can't". The reference (Arditi et al. 2024) matches apostrophes as they are and so counts such a refusal as an answer.
#ifndef BEARING_JOBS_JUDGE_SUBSTRING_JUDGE_H_
#define BEARING_JOBS_JUDGE_SUBSTRING_JUDGE_H_

#include <string>
#include <string_view>
#include <vector>

namespace bearing::jobs {

class SubstringJudge {
 public:
  template <typename Texts>
  explicit SubstringJudge(const Texts& markers) {
    for (const auto& marker : markers) Add(marker);
  }

  // The first marker of the list, as it was given, that `response` holds; empty if none.
  const std::string& Match(std::string_view response) const;

 private:
  void Add(const std::string& marker);

  struct Marker {
    std::string given, folded;
  };
  std::vector<Marker> markers_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_SUBSTRING_JUDGE_H_
