#include "jobs/did_you_mean.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace bearing::jobs {
namespace {

std::string Folded(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c != '_' && c != '-' && c != ' ') out += absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  return out;
}

// Optimal string alignment distance.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replace});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string NearestName(std::string_view name, const std::vector<std::string>& known) {
  constexpr size_t kLongestName = 64;
  const std::string wanted = Folded(name);
  if (wanted.empty() || wanted.size() > kLongestName) return "";
  std::string nearest;
  size_t fewest = std::string::npos;
  for (const std::string& candidate : known) {
    const std::string folded = Folded(candidate);
    size_t edits = EditDistance(wanted, folded);
    // A name that was cut short or drawn out ("max_tokens" for "max_new_tokens", "val" for "validation") is meant too.
    const bool prefix = wanted.size() >= 3 && (folded.rfind(wanted, 0) == 0 || wanted.rfind(folded, 0) == 0);
    if (prefix) edits = std::min<size_t>(edits, 1);
    const size_t allowed = std::max<size_t>(1, std::max(wanted.size(), folded.size()) / 3);
    if (edits <= allowed && edits < fewest) {
      fewest = edits;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

}  // namespace bearing::jobs
