// How many completions show the concept, counted one by one: nothing of the completions is kept. Not thread-safe.
#ifndef BEARING_JOBS_REPORT_CONCEPT_COUNTS_H_
#define BEARING_JOBS_REPORT_CONCEPT_COUNTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace bearing::jobs {

// Share of completions that show the concept, and its standard error sqrt(p (1 - p) / n); n = 0: none.
struct Rate {
  double share = 0;
  double standard_error = 0;
  int n = 0;
};
Rate MakeRate(int64_t showing, int64_t n);

// Rates of the prompts of one category; completions without a category are under "".
struct CategoryRates {
  std::string side;
  std::string category;
  std::map<std::string, Rate> rates;  // By intervention; only those with completions.
};

class ConceptCounts {
 public:
  void Add(const std::string& side, const std::string& intervention, const std::string& category, bool shows_concept);

  Rate Of(const std::string& side, const std::string& intervention) const;

  // Positive before negative, categories in alphabetical order.
  std::vector<CategoryRates> ByCategory() const;

 private:
  struct Count {
    int64_t showing = 0, n = 0;
  };
  // By (side is not "positive", side, category), then by intervention.
  std::map<std::tuple<bool, std::string, std::string>, std::map<std::string, Count>> counts_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_CONCEPT_COUNTS_H_
