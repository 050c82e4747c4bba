// The flags of `search`.
#ifndef BEARING_WORKER_SEARCH_SEARCH_OPTIONS_H_
#define BEARING_WORKER_SEARCH_SEARCH_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace bearing::worker {

struct SearchOptions {
  std::string run;       // Folder of a finished run.
  std::string out;       // Folder for what is found; may hold an unfinished search of the same kind.
  std::string model;     // Instead of the run's path.
  std::string dtype;     // Instead of the run's.
  std::string positive;  // Prompt files instead of the run's validation prompts; both or none.
  std::string negative;
  int64_t trials = 200;
  uint64_t seed = 1;
  int64_t population = 16;
  int64_t screen = 8;           // Prompts of each side that a trial is screened with.
  int64_t points = 8;           // Of the front, that are completed with generated answers.
  int64_t max_new_tokens = 0;   // Of an answer; 0 = the run's.
  double kl_cap = 1;            // Trials of a larger KL are of no interest.
  std::optional<int> position;  // Of the directions; unset = that of the run's direction.
  int64_t first_layer = 0;      // Directions are taken from these layers.
  std::optional<int64_t> last_layer;
  int tensor_parallel = 0;  // Ranks that hold one copy of the model; 0 = all.
  bool no_progress = false;
};

// Adds the options to a command line.
void AddSearchOptions(CLI::App& command, SearchOptions& options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_OPTIONS_H_
