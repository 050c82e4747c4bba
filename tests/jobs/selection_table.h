// Tables of scored candidates that the reference implementation recorded, kept in data/.
#ifndef BEARING_TESTS_JOBS_SELECTION_TABLE_H_
#define BEARING_TESTS_JOBS_SELECTION_TABLE_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "jobs/selection.h"

namespace bearing::jobs {

struct SelectionTable {
  int num_layers = 0;
  int num_positions = 0;
  std::vector<Candidate> candidates;
  std::pair<int, int> selected;  // Position and layer.
  std::set<std::pair<int, int>> kept;
};

// `name` is "gemma_2b_it" or "yi_6b_chat". Norms are 1, but 0 at layer 0: the tokens there are the same on both sides.
SelectionTable LoadSelectionTable(const std::string& name);

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_SELECTION_TABLE_H_
