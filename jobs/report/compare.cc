#include "jobs/report/compare.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "jobs/mean_grid.h"
#include "jobs/report/heatmap_panel.h"
#include "jobs/report/html_text.h"
#include "jobs/report/report_style.h"
#include "jobs/report/run_report.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using Json = nlohmann::json;

struct RateName {
  const char* side;
  const char* intervention;
  const char* label;
};
constexpr RateName kRates[] = {{"positive", "baseline", "positive, unchanged"},
                               {"positive", "ablation", "positive, ablated"},
                               {"negative", "baseline", "negative, unchanged"},
                               {"negative", "ablation", "negative, ablated"},
                               {"negative", "addition", "negative, added"}};

const Candidate* Chosen(const ReportData& report) {
  const bool found = report.selected >= 0 && report.selected < static_cast<int>(report.candidates.size());
  return found ? &report.candidates[static_cast<size_t>(report.selected)] : nullptr;
}

std::string CellText(const std::optional<double>& score, int decimals) {
  return score.has_value() ? FormatFixed(*score, decimals) : "n/a";
}

Json CellJson(const std::optional<double>& score) { return score.has_value() ? Json(*score) : Json(nullptr); }

std::string CosineText(const std::optional<double>& cosine) { return cosine.has_value() ? FormatFixed(*cosine, 3) : "n/a"; }

Json RunJson(const ComparedRun& run) {
  const ReportData& report = run.report;
  Json out = {{"name", run.name},
              {"title", report.title},
              {"concept", report.concept_name},
              {"model", report.model_name},
              {"model_digest", report.model_digest},
              {"dtype", report.dtype},
              {"selected", nullptr},
              {"kept", Select(report.candidates, report.rule).kept},
              {"rates", Json::array()}};
  if (const Candidate* chosen = Chosen(report)) {
    out["selected"] = {{"layer", chosen->layer},
                       {"position", chosen->position},
                       {"bypass", CellJson(chosen->bypass)},
                       {"induce", CellJson(chosen->induce)},
                       {"kl", CellJson(chosen->kl)}};
  }
  for (const RateName& name : kRates) {
    const Rate rate = report.counts.Of(name.side, name.intervention);
    if (rate.n == 0) continue;
    out["rates"].push_back({{"side", name.side},
                            {"intervention", name.intervention},
                            {"share", rate.share},
                            {"standard_error", rate.standard_error},
                            {"n", rate.n}});
  }
  return out;
}

std::string TableHtml(const std::vector<ComparedRun>& runs) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Runs\"><table><caption>Results of each "
      "run</caption><thead><tr><td></td>";
  std::vector<std::vector<std::pair<std::string, std::string>>> columns;
  for (size_t i = 0; i < runs.size(); ++i) {
    out += Concat("<th scope=\"col\">", EscapeHtml(runs[i].name), "</th>");
    columns.push_back(ComparisonRows(runs, i));
  }
  out += "</tr></thead><tbody>";
  for (size_t row = 0; !columns.empty() && row < columns[0].size(); ++row) {
    out += Concat("<tr><th scope=\"row\">", EscapeHtml(columns[0][row].first), "</th>");
    for (const auto& column : columns) {
      // Numbers with their errors stay on a line.
      const std::string& text = column[row].second;
      out += Concat(text.size() < 20 ? "<td class=\"short\">" : "<td>", EscapeHtml(text), "</td>");
    }
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

}  // namespace

absl::StatusOr<ComparedRun> ReadComparedRun(const std::string& folder) {
  ComparedRun run;
  std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  run.name = path.filename().string();
  BEARING_ASSIGN_OR_RETURN(run.report, ReadFinishedReport(folder));
  if (const Candidate* chosen = Chosen(run.report)) {
    BEARING_ASSIGN_OR_RETURN(const MeanGrid grid, MeanGrid::Open(Concat(folder, "/means.safetensors"), "mean_difference"));
    BEARING_ASSIGN_OR_RETURN(run.direction, grid.Row(chosen->position, chosen->layer));
  }
  return run;
}

std::optional<double> DirectionCosine(const ComparedRun& a, const ComparedRun& b) {
  const bool same_space = a.report.model_digest == b.report.model_digest && a.direction.size() == b.direction.size();
  if (!same_space || a.direction.empty()) return std::nullopt;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.direction.size(); ++i) {
    ab += a.direction[i] * b.direction[i];
    aa += a.direction[i] * a.direction[i];
    bb += b.direction[i] * b.direction[i];
  }
  return aa > 0 && bb > 0 ? std::optional<double>(ab / std::sqrt(aa * bb)) : std::nullopt;
}

std::vector<std::pair<std::string, std::string>> ComparisonRows(const std::vector<ComparedRun>& runs, size_t run) {
  const ReportData& report = runs[run].report;
  const Candidate* chosen = Chosen(report);
  const Selection selection = Select(report.candidates, report.rule);
  std::vector<std::pair<std::string, std::string>> rows = {
      {"job", report.title},
      {"concept", report.concept_name},
      {"model", report.model_name},
      {"type", report.dtype},
      {"layer", chosen ? Concat(chosen->layer, " of ", report.num_layers) : "none"},
      {"position", chosen ? FormatFixed(chosen->position, 0) : "none"},
      {"bypass", chosen ? CellText(chosen->bypass, 3) : "none"},
      {"induce", chosen ? CellText(chosen->induce, 3) : "none"},
      {"KL", chosen ? CellText(chosen->kl, 4) : "none"},
      {"candidates that pass", Concat(selection.kept, " of ", selection.considered)}};
  for (const RateName& name : kRates) {
    const Rate rate = report.counts.Of(name.side, name.intervention);
    rows.push_back({Concat("shows it: ", name.label),
                    rate.n == 0 ? "n/a" : Concat(FormatPercent(rate.share), " ± ", FormatFixed(100 * rate.standard_error, 1))});
  }
  for (const ComparedRun& other : runs) {
    rows.push_back({Concat("cosine to the direction of ", other.name), CosineText(DirectionCosine(runs[run], other))});
  }
  return rows;
}

Json ComparisonJson(const std::vector<ComparedRun>& runs) {
  Json out = {{"runs", Json::array()}, {"direction_cosines", Json::array()}};
  for (const ComparedRun& run : runs) {
    out["runs"].push_back(RunJson(run));
    Json row = Json::array();
    for (const ComparedRun& other : runs) row.push_back(CellJson(DirectionCosine(run, other)));
    out["direction_cosines"].push_back(std::move(row));
  }
  return out;
}

std::string RenderComparisonHtml(const std::vector<ComparedRun>& runs) {
  std::string contents = "<nav aria-label=\"Contents\"><ol><li><a href=\"#table\">Table</a></li>";
  std::string maps;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string id = Concat("run-", i + 1);
    const std::string name = EscapeHtml(runs[i].name);
    contents += Concat("<li><a href=\"#", id, "\">", name, "</a></li>");
    maps += Concat("<section id=\"", id, "\" aria-labelledby=\"", id, "-heading\"><h2 id=\"", id, "-heading\">", name, "</h2>",
                   HeatmapSection(runs[i].report, id + "-"), "</section>\n");
  }
  return Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"><title>Runs side by side · Bearing</title><style>",
      ReportStyle(), "</style></head>\n<body><header><h1>Runs side by side</h1></header>\n", contents,
      "</ol></nav>\n<main><section id=\"table\" aria-labelledby=\"table-heading\"><h2 id=\"table-heading\">Table</h2>",
      TableHtml(runs), "</section>\n", maps, "</main></body></html>\n");
}

}  // namespace bearing::jobs
