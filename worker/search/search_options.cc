#include "worker/search/search_options.h"

#include <CLI/CLI.hpp>

namespace bearing::worker {

void AddSearchOptions(CLI::App& command, SearchOptions& options) {
  command.add_option("--run", options.run, "Folder of a finished run")->required();
  command.add_option("--out", options.out, "Folder to write")->required();
  command.add_option("--model", options.model, "Model folder, where it is not that of the run any more");
  command.add_option("--dtype", options.dtype, "Compute type")->check(CLI::IsMember({"float32", "bfloat16"}));
  command.add_option("--positive", options.positive, "Prompts instead of the run's validation prompts");
  command.add_option("--negative", options.negative, "The same of the other side");
  command.add_option("--trials", options.trials, "Trials")->check(CLI::Range(1, 1000000))->capture_default_str();
  command.add_option("--seed", options.seed, "Seed of the optimizer")->capture_default_str();
  command.add_option("--population", options.population, "Trials a generation")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  command.add_option("--screen", options.screen, "Prompts a side in a screen")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command.add_option("--points", options.points, "Points with generated answers")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command.add_option("--max-new-tokens", options.max_new_tokens, "Tokens of an answer")->check(CLI::Range(1, 8192));
  command.add_option("--kl-cap", options.kl_cap, "KL of no interest")->check(CLI::PositiveNumber)->capture_default_str();
  command.add_option("--position", options.position, "Position of the directions")->check(CLI::Range(-1000, -1));
  command.add_option("--first-layer", options.first_layer, "Directions from this layer on")->check(CLI::Range(0, 100000));
  command.add_option("--last-layer", options.last_layer, "Directions up to this layer")->check(CLI::Range(0, 100000));
  command.add_option("--tensor-parallel", options.tensor_parallel, "Ranks that hold one copy of the model")
      ->check(CLI::Range(1, 1024));
  command.add_flag("--no-progress", options.no_progress, "Show no progress");
}

}  // namespace bearing::worker
