// `bearing select`: another choice from the scores of a job, without running anything.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "jobs/candidate_table.h"

namespace bearing::cli {
namespace {

struct SelectOptions {
  std::string from;
  std::optional<double> kl_max, induce_min, prune_layers;
  int64_t num_layers = 0;
  std::string direction_out;
};

nlohmann::json ToJson(const jobs::Selection& selection, const std::vector<jobs::Candidate>& candidates) {
  nlohmann::json chosen;
  if (selection.selected.has_value()) {
    const jobs::Candidate& c = candidates[*selection.selected];
    chosen = {{"layer", c.layer}, {"position", c.position}, {"bypass", *c.bypass}, {"induce", *c.induce}, {"kl", *c.kl}};
  }
  return {
      {"selected", chosen}, {"considered", selection.considered}, {"kept", selection.kept}, {"discarded", selection.discarded}};
}

std::string ToTable(const jobs::Selection& selection, const std::vector<jobs::Candidate>& candidates) {
  const jobs::Candidate& c = candidates[*selection.selected];
  std::vector<std::string> reasons;
  for (const auto& [reason, count] : selection.discarded) reasons.push_back(absl::StrCat(count, " by ", reason));
  return FormatTable({{"layer", absl::StrCat(c.layer)},
                      {"position", absl::StrCat(c.position)},
                      {"bypass", absl::StrFormat("%.4f", *c.bypass)},
                      {"induce", absl::StrFormat("%.4f", *c.induce)},
                      {"KL", absl::StrFormat("%.4f", *c.kl)},
                      {"kept", absl::StrCat(selection.kept, " of ", selection.considered)},
                      {"discarded", reasons.empty() ? "none" : absl::StrJoin(reasons, ", ")}});
}

int SelectAgain(const SelectOptions& options, const Globals& globals) {
  absl::StatusOr<jobs::CandidateTable> table = jobs::LoadCandidateTable(options.from, options.num_layers);
  if (!table.ok()) return Fail(table.status());
  if (options.num_layers > 0 && options.num_layers != table->rule.num_layers) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("--num-layers: the table is of a model with ", table->rule.num_layers)));
  }
  table->rule.kl_max = options.kl_max.value_or(table->rule.kl_max);
  table->rule.induce_min = options.induce_min.value_or(table->rule.induce_min);
  table->rule.prune_layers = options.prune_layers.value_or(table->rule.prune_layers);
  const jobs::Selection selection = jobs::Select(table->candidates, table->rule);

  const OutputFormat format = ParseOutputFormat(globals.output);
  const nlohmann::json document = ToJson(selection, table->candidates);
  if (format == OutputFormat::kJson) std::cout << document.dump(1) << '\n';
  if (format == OutputFormat::kYaml) std::cout << JsonToYaml(document);
  if (const auto unscored = selection.discarded.find("not_scored"); unscored != selection.discarded.end()) {
    std::cerr << "bearing: " << unscored->second
              << " candidate(s) pass what was scored, but failed an earlier test of the run and lack a score: a run with "
                 "select.complete: true would consider them too\n";
  }
  if (!selection.selected.has_value()) {
    return Fail(absl::FailedPreconditionError(jobs::ExplainNoneSelected(table->candidates, table->rule)), kExitFailed);
  }
  const jobs::Candidate& chosen = table->candidates[*selection.selected];
  if (format == OutputFormat::kTable) std::cout << ToTable(selection, table->candidates);
  if (format == OutputFormat::kName) std::cout << "layer " << chosen.layer << " position " << chosen.position << '\n';
  if (options.direction_out.empty()) return kExitOk;
  const absl::Status written = jobs::WriteDirectionOf(*table, chosen, options.direction_out);
  return written.ok() ? kExitOk : Fail(written);
}

}  // namespace

void AddSelectCommand(CommandLine& line) {
  auto options = std::make_shared<SelectOptions>();
  CLI::App* command = line.app.add_subcommand("select", "Choose again from the scores of a finished job, running nothing");
  command
      ->add_option("--from", options->from,
                   "Output folder of a job, its candidates.json, or direction_evaluations.json of the reference implementation")
      ->required()
      ->check(CLI::ExistingPath);
  command->add_option("--kl-max", options->kl_max, "KL of a candidate at the most (default: as in the run, else 0.1)");
  command->add_option("--induce-min", options->induce_min, "Induce of a candidate at least (default: as in the run, else 0)");
  command
      ->add_option("--prune-layers", options->prune_layers, "Last share of layers left out (default: as in the run, else 0.2)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--num-layers", options->num_layers, "Layers of the model, for tables that do not say")
      ->check(CLI::Range(1, 10000));
  command->add_option("--direction-out", options->direction_out, "Write the chosen direction to this new file (safetensors)");
  command->footer(
      "Of the candidates that pass the thresholds, the one with the smallest bypass is taken, as in a job. A run that tested "
      "the\n"
      "cheap things first has no scores behind a failed test; it is said when that may matter.\n\n"
      "Example:\n  bearing select --from out/refusal --kl-max 0.2\n"
      "  bearing select --from direction_evaluations.json --num-layers 18 -o json");
  command->callback([&line, options] { line.action = [&line, options] { return SelectAgain(*options, line.globals); }; });
}

}  // namespace bearing::cli
