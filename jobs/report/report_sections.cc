#include "jobs/report/report_sections.h"

#include <nlohmann/json.hpp>

#include "jobs/report/chart_sections.h"
#include "jobs/report/cost_section.h"
#include "jobs/report/geometry_section.h"
#include "jobs/report/heatmap_panel.h"
#include "jobs/report/judge_section.h"
#include "jobs/report/report_tables.h"
#include "jobs/report/search_page.h"
#include "jobs/report/summary_section.h"

namespace bearing::jobs {
namespace {

constexpr ReportSection kSections[] = {
    {"summary", "Summary", SummarySection},
    {"effect", "What it does", EffectSection},
    {"categories", "By category", CategorySection},
    {"judges", "What the judges say", JudgeSection},
    {"costs", "What it costs", CostSection},
    {"where", "Where the direction is", HeatmapSection},
    {"chosen", "How it was chosen", CandidateSection},
    {"tradeoff", "Strength against side effect", ScatterSection},
    {"search-front", "Search: strengths and layers tuned", SearchSection},
    {"geometry", "Geometry", GeometrySection},
    {"norms", "Norms of the residual stream", NormSection},
    {"metric", "What is measured", MetricSection},
    {"prompts", "Prompts", PromptSection},
    {"completions", "Completions side by side", CompletionSection},
    {"verification", "Is the edited checkpoint right?", VerificationSection},
    {"run", "The run", RunSection},
};

}  // namespace

absl::Span<const ReportSection> ReportSections() { return kSections; }

}  // namespace bearing::jobs
