#include "worker/steer/shared_rows.h"

#include <algorithm>

namespace bearing::steer {
namespace {

int64_t Common(const ScoredRow& a, const ScoredRow& b) {
  const auto limit = static_cast<std::ptrdiff_t>(std::min(a.first, b.first)) - 1;
  return std::mismatch(a.tokens.begin(), a.tokens.begin() + limit, b.tokens.begin()).first - a.tokens.begin();
}

}  // namespace

std::vector<RowFamily> ShareRows(absl::Span<const ScoredRow> rows, int64_t budget, int64_t boundary) {
  std::vector<RowFamily> families;
  int64_t fed = 0;  // By the rows of the last family, were nothing shared.
  for (size_t r = 0; r < rows.size(); ++r) {
    const int64_t own = rows[r].num_fed();
    if (!families.empty()) {
      RowFamily& family = families.back();
      const ScoredRow& first = rows[family.rows.begin];
      const int64_t common = Common(first, rows[r]);
      const int64_t prefix = family.rows.size() == 1 ? common : std::min(family.prefix, common);
      const int64_t tokens = fed + own - static_cast<int64_t>(family.rows.size()) * prefix;
      const bool same_side = boundary == 0 || (first.num_fed() > boundary) == (own > boundary);
      if (prefix > 0 && tokens < family.tokens + own && tokens <= budget && same_side) {
        family.rows.end = r + 1;
        family.prefix = prefix;
        family.tokens = tokens;
        fed += own;
        continue;
      }
    }
    families.push_back({{r, r + 1}, 0, own});
    fed = own;
  }
  return families;
}

void AppendFamily(absl::Span<const ScoredRow> rows, const RowFamily& family, model::PackedBatch& batch,
                  std::vector<int64_t>& read) {
  int parent = -1;
  if (family.prefix > 0) {
    parent = batch.Add(absl::MakeConstSpan(rows[family.rows.begin].tokens).subspan(0, family.prefix));
  }
  for (size_t r = family.rows.begin; r < family.rows.end; ++r) {
    const ScoredRow& row = rows[r];
    batch.Add(absl::MakeConstSpan(row.tokens).subspan(family.prefix, row.num_fed() - family.prefix), parent);
    for (int64_t i = row.num_scored(); i > 0; --i) read.push_back(batch.num_tokens() - i);
  }
}

}  // namespace bearing::steer
