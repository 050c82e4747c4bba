#include "worker/search/search_output.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "jobs/report/search_page.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/version.h"

namespace bearing::worker {
namespace {

using nlohmann::json;

constexpr char kDirections[] = "search.safetensors";

// A number, or null for what is none.
json Number(double value) { return std::isfinite(value) ? json(value) : json(); }

std::string PathOf(const SearchOptions& options, const char* name) { return absl::StrCat(options.out, "/", name); }

absl::Status WriteDirections(const SearchInputs& inputs, const SearchOptions& options, const SearchSpace& space,
                             const SearchResult& result) {
  const auto count = static_cast<int64_t>(result.points.size()) - 1;
  std::vector<double> rows;
  for (const SearchPoint& point : result.points) {
    if (point.trial < 0) continue;
    BEARING_ASSIGN_OR_RETURN(const edit::EditSpec spec,
                             space.SpecOf(space.Decode(result.trials[static_cast<size_t>(point.trial)].point)));
    rows.insert(rows.end(), spec.directions[0].begin(), spec.directions[0].end());
  }
  const std::string path = PathOf(options, kDirections);
  std::error_code error;
  std::filesystem::remove(path, error);
  return sharding::WriteSafetensors(path, {{"direction", sharding::DType::kF64, {count, space.d_model()}, rows.data()}},
                                    {{"format", "bearing/search-directions/v1"},
                                     {"model_digest", inputs.context.model_digest},
                                     {"position", absl::StrCat(inputs.position)}});
}

absl::StatusOr<std::string> CompletionLines(const SearchResult& result, const SearchJournal& journal) {
  std::string lines;
  for (size_t p = 0; p < result.points.size(); ++p) {
    const json* const line = journal.Completions(result.points[p].trial);
    if (line == nullptr) return absl::InternalError("a point without completions");
    for (json completion : line->at("completions")) {
      completion["point"] = p == 0 ? json() : json(p - 1);
      completion["shows_concept"] = !completion.at("matched_marker").get<std::string>().empty();
      absl::StrAppend(&lines, completion.dump(-1, ' ', false, json::error_handler_t::replace), "\n");
    }
  }
  return lines;
}

json PointJson(const SearchSpace& space, const SearchResult& result, size_t p, int position) {
  const SearchPoint& point = result.points[p];
  const Trial& trial = result.trials[static_cast<size_t>(point.trial)];
  json out = ParametersJson(space, space.Decode(trial.point));
  out["point"] = p - 1;
  out["trial"] = point.trial;
  out["position"] = position;
  out["on_front"] = point.on_front;
  out["shown"] = point.shown;
  out["answers"] = point.answers;
  out["refusals"] = point.share();
  out["standard_error"] = point.standard_error();
  out["kl"] = Number(trial.score->kl);
  out["probability"] = Number(trial.score->probability);
  out["metric"] = Number(trial.score->metric);
  return out;
}

json TrialsJson(const SearchSpace& space, const SearchResult& result) {
  json trials = json::array();
  for (size_t t = 0; t < result.trials.size(); ++t) {
    const Trial& trial = result.trials[t];
    json out = ParametersJson(space, space.Decode(trial.point));
    out.update(TrialJson(static_cast<int64_t>(t), trial));
    trials.push_back(std::move(out));
  }
  return trials;
}

json Document(const SearchInputs& inputs, const SearchOptions& options, const SearchSpace& space, const SearchResult& result) {
  json points = json::array();
  for (size_t p = 1; p < result.points.size(); ++p) points.push_back(PointJson(space, result, p, inputs.position));
  int64_t completed = 0;
  for (const Trial& trial : result.trials) completed += trial.score.has_value() ? 1 : 0;
  const SearchPoint& before = result.points.front();
  const bearing::v1::JobSpec& spec = inputs.context.spec;
  return {{"format", "bearing-search/1"},
          {"version", kVersion},
          {"concept", spec.concept_spec().name()},
          {"model", std::filesystem::path(spec.model().path()).filename().string()},
          {"model_digest", inputs.context.model_digest},
          {"dtype", spec.model().dtype()},
          {"settings", result.key},
          {"axes", {"layer", "projected", "embedding", "attention", "mlp", "profile"}},
          {"layers", {space.first_layer(), space.last_layer()}},
          {"num_layers", space.num_layers()},
          {"prompts", {{"positive", inputs.positive.size()}, {"negative", inputs.negative.size()}}},
          {"baseline",
           {{"refusals", before.share()},
            {"standard_error", before.standard_error()},
            {"shown", before.shown},
            {"answers", before.answers},
            {"probability", Number(result.baseline.probability)},
            {"metric", Number(result.baseline.metric)}}},
          {"trials_completed", completed},
          {"trials_screened_out", static_cast<int64_t>(result.trials.size()) - completed},
          {"trials_resumed", result.resumed_trials},
          {"seconds", result.seconds},
          {"trial_seconds", result.trial_seconds},
          {"ranks", inputs.context.comm->size()},
          {"kl_cap", options.kl_cap},
          {"directions", {{"file", kDirections}}},
          {"points", points},
          {"trials", TrialsJson(space, result)}};
}

}  // namespace

absl::Status WriteSearch(const SearchInputs& inputs, const SearchOptions& options, const SearchSpace& space,
                         const SearchResult& result, const SearchJournal& journal) {
  std::error_code error;
  std::filesystem::remove(PathOf(options, "search.json"), error);  // It vouches for the others.
  BEARING_RETURN_IF_ERROR(WriteDirections(inputs, options, space, result));
  BEARING_ASSIGN_OR_RETURN(const std::string completions, CompletionLines(result, journal));
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(PathOf(options, "completions.jsonl"), completions));
  json document = Document(inputs, options, space, result);
  BEARING_ASSIGN_OR_RETURN(document["directions"]["sha256"], jobs::Sha256OfFile(PathOf(options, kDirections)));
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(PathOf(options, "search.html"), jobs::RenderSearchPage(document)));
  return jobs::WriteFileAtomically(PathOf(options, "search.json"), document.dump(1) + "\n");
}

}  // namespace bearing::worker
