// write_report_pages FOLDER: pages of the product's code for the tests in a browser.
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "jobs/artifacts.h"
#include "jobs/report/compare.h"
#include "jobs/report/probe_report.h"
#include "jobs/report/report.h"
#include "jobs/report/search_page.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

// 32 layers, 32 heads, two sets with prompts of 80 tokens.
ProbeReport LargeProbe() {
  constexpr int kLayers = 32, kHeads = 32, kTokens = 80;
  ProbeReport report;
  report.version = "0.1.0", report.created = "2025-11-21T15:00:00Z", report.model_name = "yi-6b-chat",
  report.dtype = "bfloat16";
  report.model_digest = std::string(64, 'a');
  report.num_layers = kLayers, report.num_heads = kHeads;
  report.directions = {{"refusal", 20, {}, std::string(64, 'b')}};
  const auto curve = [](int points, double slope) {
    ProbeReport::Curve out;
    for (int i = 0; i < points; ++i) {
      const double at = slope * i / points;
      out.mean.push_back(at), out.q10.push_back(at - 0.1), out.q25.push_back(at - 0.05), out.median.push_back(at),
          out.q75.push_back(at + 0.05), out.q90.push_back(at + 0.1);
    }
    return out;
  };
  for (int s = 0; s < 2; ++s) {
    ProbeReport::Set& set = report.sets.emplace_back();
    set.label = s == 0 ? "harmful_prompts_of_the_test_set.json" : "harmful_prompts_of_the_test_set.json + suffix";
    set.prompts = 64;
    set.norm.assign(kLayers + 1, 10);
    ProbeReport::Measured measured{curve(kLayers + 1, 40.0 / (s + 1)), curve(kLayers + 1, 0.6 / (s + 1)), 0.1, {}, {}, {}};
    for (int l = 0; l < kLayers; ++l) {
      measured.attention.push_back(std::sin(l) + s), measured.mlp.push_back(std::cos(l) - s);
      std::vector<double>& heads = measured.heads.emplace_back();
      for (int h = 0; h < kHeads; ++h) heads.push_back(std::sin(h * l + s));
    }
    set.directions = {measured};
    ProbeReport::TokenMap map{.prompt = 0, .tokens = {}, .cosine = {{}}};
    for (int t = 0; t < kTokens; ++t) {
      map.tokens.push_back(t % 7 == 0 ? "\n" : t % 5 == 0 ? "a token that is very long" : " token");
      map.cosine[0].push_back(std::vector<double>(kLayers + 1, std::sin(0.2 * t)));
    }
    set.tokens = {map};
  }
  return report;
}

nlohmann::json LargeSearch() {
  nlohmann::json search = {{"concept", "refusal"},
                           {"model", "yi-6b-chat"},
                           {"version", "0.1.0"},
                           {"trials_completed", 60},
                           {"prompts", {{"positive", 32}, {"negative", 30}}},
                           {"baseline", {{"refusals", 0.94}, {"standard_error", 0.04}, {"probability", 0.9}, {"metric", 2.3}}},
                           {"points", nlohmann::json::array()},
                           {"trials", nlohmann::json::array()}};
  for (int i = 0; i < 60; ++i) {
    const double kl = 0.001 * std::exp(0.1 * i);
    const double left = 0.9 * std::exp(-0.06 * i);
    search["trials"].push_back({{"trial", i}, {"score", {{"probability", left}, {"kl", kl}}}});
    if (i % 12 != 0) continue;
    search["points"].push_back({{"point", i / 12},
                                {"trial", i},
                                {"refusals", left},
                                {"standard_error", 0.05},
                                {"kl", kl},
                                {"metric", 2.0 - 0.1 * i},
                                {"layer", 11.25},
                                {"projected", 0.5},
                                {"embedding", 0.1},
                                {"attention", 1.25},
                                {"mlp", 0.75},
                                {"layer_strengths", {0.25, 1.0}},
                                {"on_front", i > 0}});
  }
  return search;
}

absl::Status WritePages(const std::string& folder) {
  const auto write = [&](const char* name, const std::string& html) { return WriteFileAtomically(folder + "/" + name, html); };
  ReportData none = ExampleReport(false);
  none.rule.kl_max = 0.001;
  none.selected = -1;
  ReportData large = LargeReport();
  large.search = LargeSearch();
  large.shown["positive"] = {30000, 16, 12, 3};
  std::vector<ComparedRun> runs;
  for (int i = 0; i < 5; ++i) {
    ComparedRun run{.name = i == 2 ? "a-rather-long-name-of-a-folder-with-a-run" : "run-" + std::to_string(i),
                    .report = i == 4 ? LargeReport() : ExampleReport(i % 2 == 0),
                    .direction = {1.0, 0.5 * i, -0.25 * i}};
    runs.push_back(std::move(run));
  }
  for (const auto& [name, html] :
       std::vector<std::pair<const char*, std::string>>{{"example.html", RenderReportHtml(ExampleReport(false))},
                                                        {"large.html", RenderReportHtml(large)},
                                                        {"none.html", RenderReportHtml(none)},
                                                        {"compare.html", RenderComparisonHtml(runs)},
                                                        {"probe.html", RenderProbeHtml(LargeProbe())},
                                                        {"search.html", RenderSearchPage(LargeSearch())}}) {
    if (const absl::Status written = write(name, html); !written.ok()) return written;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bearing::jobs

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const absl::Status status = bearing::jobs::WritePages(argv[1]);
  if (!status.ok()) std::cerr << status << '\n';
  return status.ok() ? 0 : 1;
}
