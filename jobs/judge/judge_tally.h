// What the judges say over all completions, counted as they come: rates with standard errors, by category, and agreement.
// Memory does not grow with the completions. Not thread-safe.
#ifndef BEARING_JOBS_JUDGE_JUDGE_TALLY_H_
#define BEARING_JOBS_JUDGE_JUDGE_TALLY_H_

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bearing/v1/job.pb.h"
#include "jobs/judge/agreement.h"

namespace bearing::jobs {

// What one judge says of one completion, in its own terms.
struct Verdict {
  std::optional<bool> yes;      // None: not judged.
  std::optional<double> score;  // The metric, or the probability of yes; none for substrings.
};

class JudgeTally {
 public:
  JudgeTally(std::vector<bearing::v1::Judge> judges, std::string concept_name);

  const std::vector<bearing::v1::Judge>& judges() const { return judges_; }

  // Does the judge's verdict say that the completion shows the concept?
  std::optional<bool> ShowsConcept(size_t judge, const Verdict& verdict) const;

  // One completion, a verdict of each judge.
  void Add(const std::string& side, const std::string& intervention, const std::string& category,
           const std::vector<Verdict>& verdicts);

  // For evaluation.json: "rates", "rates_by_category" (of the first judge, by what shows the concept), "judges", "agreement".
  // `models` holds what is known of each judge's model; null for others.
  nlohmann::json ToJson(const std::vector<nlohmann::json>& models) const;

 private:
  struct Count {
    int64_t yes = 0, judged = 0, not_judged = 0;
  };
  // Of one judge: by condition, and by condition and category.
  struct Counts {
    std::vector<Count> all;
    std::vector<std::map<std::string, Count>> by_category;
  };

  size_t ConditionOf(const std::string& side, const std::string& intervention);
  nlohmann::json RatesOf(const Counts& counts) const;
  nlohmann::json CategoriesOf(const Counts& counts) const;

  std::vector<bearing::v1::Judge> judges_;
  std::string concept_name_;
  std::vector<std::pair<std::string, std::string>> conditions_;  // In the order in which they came.
  std::vector<Counts> counts_;                                   // Of each judge.
  Counts shows_;                                                 // Of the first judge, turned to the concept.
  Agreement agreement_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_JUDGE_TALLY_H_
