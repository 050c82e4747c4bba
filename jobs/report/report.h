// report.html: one self-contained page (inline CSS and SVG, no scripts, no requests), and report.json with the same numbers.
#ifndef BEARING_JOBS_REPORT_REPORT_H_
#define BEARING_JOBS_REPORT_REPORT_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "jobs/report/completion_sample.h"
#include "jobs/report/concept_counts.h"
#include "jobs/report/cost_section.h"
#include "jobs/selection.h"

namespace bearing::jobs {

// One completion of a test prompt.
struct Completion {
  std::string side;          // "positive" or "negative"
  std::string intervention;  // "baseline", "ablation", "addition"
  std::string category;
  std::string prompt;
  std::string response;
  bool shows_concept = false;
  std::string matched_marker;  // Which marker matched, if any.
  // What each judge said in its own terms ("markers: refusal", "llama-guard: no unsafe, 0.12"); empty in older runs.
  std::vector<std::string> verdicts = {};
};

struct ReportData {
  std::string title;         // Job name.
  std::string concept_name;  // "refusal"
  std::string version;
  std::string created;     // RFC 3339 UTC.
  std::string model_name;  // Last part of the folder; never a local path.
  std::string model_digest;
  std::string dtype;
  int ranks = 1;
  int num_layers = 0;
  int num_positions = 0;
  int64_t d_model = 0;
  std::vector<std::string> position_tokens;  // Text of the post-instruction tokens, oldest first.

  // Metric tokens: id, text, mean probability on the two sets at baseline.
  struct MetricToken {
    int id = 0;
    std::string text;
    double positive_probability = 0;
    double negative_probability = 0;
  };
  std::vector<MetricToken> metric_tokens;
  bool metric_tokens_derived = false;

  // set name ("positive train", ...) -> {given, kept by the filter}
  std::vector<std::pair<std::string, std::pair<int, int>>> prompt_counts;
  double positive_metric = 0;  // Baseline mean of the metric on validation prompts.
  double negative_metric = 0;

  SelectionRule rule;
  bool complete = false;
  std::vector<std::string> relaxations;  // What was relaxed to let a candidate pass; empty normally.
  std::vector<Candidate> candidates;
  int selected = -1;  // Index into candidates.

  // [position][layer]: norms of the residual means of both sides and of their difference (same order as positions).
  std::vector<std::vector<double>> positive_norms, negative_norms, difference_norms;

  // Training prompts at the last position, layer by layer (worker/steer/geometry.h has the formulas); empty in older runs.
  struct LayerGeometry {
    double positive_norm = 0, negative_norm = 0, positive_norm_spread = 0, negative_norm_spread = 0;
    double difference_norm = 0, pc1_share = 0, pc2_share = 0, pc1_cosine = 0, auroc = 0, silhouette = 0;
    std::vector<double> projections, pc1, pc2;  // Of each prompt, the positive ones first.
  };
  std::vector<LayerGeometry> geometry;
  size_t geometry_positives = 0;
  // Cosines of mean differences, [position][layer][layer] and [layer][position][position]; NaN where there is no direction.
  using Matrices = std::vector<std::vector<std::vector<double>>>;
  Matrices layer_cosines, position_cosines;

  ConceptCounts counts;                       // Of all completions.
  std::vector<Completion> completions;        // Those that are shown (completion_sample.h).
  std::map<std::string, ShownPrompts> shown;  // By side.

  // "judges" and "agreement" of evaluation.json; null in older runs.
  nlohmann::json judges, agreement;
  std::vector<CostRow> costs;
  nlohmann::json search;  // search.json of the folder `search` in the run's; null where there is none.

  // Verification of the edited checkpoint; empty when the stage was skipped. Name -> value, e.g. "max |logit difference|".
  std::vector<std::pair<std::string, std::string>> verification;
  // Stage -> seconds.
  std::vector<std::pair<std::string, double>> stage_seconds;
  // Name -> value rows of provenance (prompt digests, settings).
  std::vector<std::pair<std::string, std::string>> provenance;
};

std::string RenderReportHtml(const ReportData& data);
std::string RenderReportJson(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_REPORT_H_
