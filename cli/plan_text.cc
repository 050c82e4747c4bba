#include "cli/plan_text.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/output.h"
#include "cli/quantity.h"

namespace bearing::cli {
namespace {

using jobs::Plan;
using jobs::PlannedStage;
using jobs::Work;
using sharding::RankPlan;

using Rows = std::vector<std::vector<std::string>>;

// "7 + 7", "8 a rank", "7 to 8 a rank".
std::string Sizes(const Plan& plan, sharding::Range RankPlan::*range) {
  std::vector<int64_t> sizes;
  for (const RankPlan& rank : plan.shards.ranks) sizes.push_back((rank.*range).size());
  const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
  if (sizes.size() <= 4) return absl::StrJoin(sizes, " + ");
  return *least == *most ? absl::StrCat(*most, " a rank") : absl::StrCat(*least, " to ", *most, " a rank");
}

std::string Layout(const Plan& plan) {
  std::string text = absl::StrCat("heads ", Sizes(plan, &RankPlan::heads), ", KV heads ", Sizes(plan, &RankPlan::kv_heads));
  const RankPlan& first = plan.shards.ranks.front();
  if (first.mlp.size() > 0) absl::StrAppend(&text, ", MLP columns ", Sizes(plan, &RankPlan::mlp));
  if (first.expert.size() > 0) absl::StrAppend(&text, ", columns of an expert ", Sizes(plan, &RankPlan::expert));
  if (first.shared_expert.size() > 0) absl::StrAppend(&text, ", of the shared one ", Sizes(plan, &RankPlan::shared_expert));
  return absl::StrCat(text, ", vocabulary ", Sizes(plan, &RankPlan::vocab));
}

std::string MachineLine(const jobs::Machine& machine) {
  const std::string rates = absl::StrFormat(
      "products %sFLOP/s, memory %sB/s, messages %sB/s and %.3g us a hop, disk %sB/s%s; all a rank",
      FormatCount(machine.ProductFlopsPerSecond(512)), FormatCount(machine.memory_bytes_per_s),
      FormatCount(machine.link_bytes_per_s), machine.link_latency_s * 1e6, FormatCount(machine.disk_read_bytes_per_s),
      machine.measured && machine.disk_cached_share > 0.5 ? " (from the page cache)" : "");
  if (!machine.measured) return absl::StrCat("estimate from datasheet, not measured: ", machine.name, "; ", rates);
  return absl::StrFormat("measured with %d rank(s) of %d thread(s) on %s; %s", machine.ranks, machine.threads, machine.name,
                         rates);
}

int64_t TokensOf(const jobs::PromptLengths& lengths) {
  int64_t tokens = 0;
  for (const int64_t one : lengths.tokens) tokens += one;
  return tokens;
}

std::string WorkloadLine(const jobs::Workload& load) {
  int64_t prompts = 0;
  int64_t tokens = 0;
  for (const jobs::WorkloadSide* side : {&load.positive, &load.negative}) {
    for (const jobs::PromptLengths* set : {&side->train, &side->validation, &side->test}) {
      prompts += set->count();
      tokens += TokensOf(*set);
    }
  }
  return absl::StrFormat(
      "%d prompts of %.1f tokens, %d shared in front, %d positions; %d candidates, about %d to KL and %d to bypass", prompts,
      prompts == 0 ? 0.0 : static_cast<double>(tokens) / static_cast<double>(prompts), load.negative.validation.Prefix(1),
      load.positions, load.num_candidates(), load.to_kl, load.to_bypass);
}

// What most of a stage's time goes to.
const char* MostTimeIn(const Work& work) {
  const std::pair<double, const char*> parts[] = {{work.product_seconds, "products"},    {work.attention_seconds, "attention"},
                                                  {work.elementwise_seconds, "vectors"}, {work.message_seconds, "messages"},
                                                  {work.disk_seconds, "disk"},           {work.other_seconds, "conversion"}};
  const auto* most =
      std::max_element(std::begin(parts), std::end(parts), [](const auto& a, const auto& b) { return a.first < b.first; });
  return most->first > 0 ? most->second : "-";
}

std::string SlowestLine(const Plan& plan) {
  const PlannedStage& slowest = plan.stages[plan.slowest];
  std::string text = absl::StrFormat("%s: %s of %s (%.0f %%)", jobs::PlanStageName(slowest.cost.stage),
                                     FormatDuration(slowest.cost.work.seconds()), FormatDuration(plan.seconds),
                                     100 * slowest.cost.work.seconds() / plan.seconds);
  if (plan.worst_seconds > plan.seconds * 1.01) {
    absl::StrAppend(&text, "; ", FormatDuration(plan.worst_seconds), " if every candidate reaches every test");
  }
  return text;
}

std::string MemoryLine(const Plan& plan) {
  std::string text = absl::StrFormat("%s a rank at the most (%s) of %s: ", FormatBytes(static_cast<double>(plan.peak_bytes)),
                                     jobs::PlanStageName(plan.stages[plan.fullest].cost.stage),
                                     FormatBytes(static_cast<double>(plan.available_bytes)));
  if (plan.fits()) return absl::StrCat(text, "fits");
  absl::StrAppend(&text, "does NOT fit, ", FormatBytes(static_cast<double>(plan.peak_bytes - plan.available_bytes)),
                  " too much. ");
  if (plan.smallest_ranks.has_value()) {
    return absl::StrCat(text, *plan.smallest_ranks, " ranks like these would hold it (--ranks ", *plan.smallest_ranks, ")");
  }
  return absl::StrCat(text, "No number of ranks like these holds it");
}

std::string StreamedLine(const Plan& plan) {
  return absl::StrFormat("model.residency=streamed would take %s a rank (%s) and read the layers %.0f times: %s of disk%s",
                         FormatBytes(static_cast<double>(plan.streamed.bytes)), plan.streamed.fits ? "fits" : "does not fit",
                         plan.streamed.weight_readings, FormatDuration(plan.streamed.disk_seconds),
                         plan.streamed.by_default ? "; model.residency=auto does so here, and these times are without it" : "");
}

Rows StageRows(const Plan& plan) {
  Rows rows = {{"STAGE", "TIME", "AT WORST", "SHARE", "FLOP", "PASSES", "MESSAGES", "SENT", "DISK", "MEMORY", "MOST TIME IN"}};
  Work total;
  int64_t passes = 0;
  const auto row = [&plan](const std::string& name, double seconds, double worst, const Work& work, int64_t count,
                           int64_t memory) {
    return std::vector<std::string>{name,
                                    FormatDuration(seconds),
                                    FormatDuration(worst),
                                    absl::StrFormat("%.0f %%", 100 * seconds / plan.seconds),
                                    FormatCount(work.flops),
                                    absl::StrCat(count),
                                    FormatCount(work.messages),
                                    FormatBytes(work.message_bytes),
                                    FormatBytes(work.disk_bytes),
                                    FormatBytes(static_cast<double>(memory)),
                                    MostTimeIn(work)};
  };
  for (const PlannedStage& stage : plan.stages) {
    const Work& work = stage.cost.work;
    rows.push_back(row(jobs::PlanStageName(stage.cost.stage), work.seconds(), stage.worst_seconds, work, stage.cost.passes,
                       stage.cost.memory.total()));
    total.Add(work);
    passes += stage.cost.passes;
  }
  rows.push_back(row("total", plan.seconds, plan.worst_seconds, total, passes, plan.peak_bytes));
  return rows;
}

std::string Assumptions(const jobs::Workload& load, const jobs::Machine& machine) {
  std::vector<std::string> lines = {absl::StrCat("tokens: ", load.how)};
  if (!load.complete) {
    lines.push_back(absl::StrFormat("%d of %d candidates induce, %d of those are close (--induce-share, --kl-share)",
                                    load.to_kl, load.num_candidates(), load.to_bypass));
  }
  if (load.filter) lines.push_back("the filter keeps every prompt");
  if (load.max_new_tokens > 0) lines.push_back(absl::StrCat("every completion runs to ", load.max_new_tokens, " tokens"));
  lines.push_back("start of the programs, tokenizing and the report are not counted");
  lines.insert(lines.end(), machine.assumed.begin(), machine.assumed.end());
  std::string text = "assumed\n";
  for (const std::string& line : lines) absl::StrAppend(&text, "  - ", line, "\n");
  return text;
}

// Of the heading.
std::string Copies(const Plan& plan) {
  if (plan.request.replicas() == 1) return "";
  return absl::StrFormat(" (%d copies of the model on %d each)", plan.request.replicas(), plan.request.tensor_parallel);
}

}  // namespace

std::string FormatPlan(const Plan& plan, const jobs::Workload& workload, const jobs::Machine& machine) {
  const auto bytes = [](int64_t n) { return FormatBytes(static_cast<double>(n)); };
  const Rows head = {
      {"job",
       absl::StrFormat("%s on %d rank(s)%s, %s", plan.request.job, plan.request.ranks, Copies(plan), plan.request.dtype)},
      {"slowest", SlowestLine(plan)},
      {"memory", MemoryLine(plan)},
      {"held", absl::StrFormat("weights %s a rank (%s on disk), KV cache %s, residuals %s", bytes(plan.weights.held),
                               bytes(plan.weights.stored), bytes(plan.kv_bytes), bytes(plan.residual_bytes))},
      {"streamed", StreamedLine(plan)},
      {"model",
       absl::StrFormat("%s, %d layers, d_model %d, %s parameters, %s as %s", plan.family, plan.num_layers, plan.d_model,
                       FormatCount(static_cast<double>(plan.parameters)), bytes(plan.checkpoint_bytes), plan.stored_dtype)},
      {"layout", Layout(plan)},
      {"work", WorkloadLine(workload)},
      {"machine", MachineLine(machine)}};
  return absl::StrCat(FormatTable(head), "\n", FormatTable(StageRows(plan)),
                      "SENT, DISK and MEMORY are of one rank, the fullest; FLOP is of all together.\n\n",
                      Assumptions(workload, machine));
}

std::string FormatScaling(const std::vector<Plan>& plans, const std::vector<RefusedRanks>& refused,
                          const jobs::Workload& workload, const jobs::Machine& machine) {
  const auto bytes = [](int64_t n) { return FormatBytes(static_cast<double>(n)); };
  Rows rows = {{"RANKS", "HEADS", "KV HEADS", "WEIGHTS", "KV", "RESIDUALS", "PEAK", "FITS", "FLOP", "MESSAGES", "SENT", "TIME",
                "AT WORST", "SLOWEST", "STREAMED", "ITS DISK"}};
  for (const Plan& plan : plans) {
    Work total;
    for (const PlannedStage& stage : plan.stages) total.Add(stage.cost.work);
    std::string fits = "yes";
    if (!plan.fits()) fits = absl::StrCat("no, by ", bytes(plan.peak_bytes - plan.available_bytes));
    rows.push_back({absl::StrCat(plan.request.ranks), Sizes(plan, &RankPlan::heads), Sizes(plan, &RankPlan::kv_heads),
                    bytes(plan.weights.held), bytes(plan.kv_bytes), bytes(plan.residual_bytes), bytes(plan.peak_bytes), fits,
                    FormatCount(total.flops), FormatCount(total.messages), FormatBytes(total.message_bytes),
                    FormatDuration(plan.seconds), FormatDuration(plan.worst_seconds),
                    jobs::PlanStageName(plan.stages[plan.slowest].cost.stage), bytes(plan.streamed.bytes),
                    FormatDuration(plan.streamed.disk_seconds)});
  }
  std::string text = FormatTable(rows);
  for (const RefusedRanks& refusal : refused) absl::StrAppend(&text, refusal.ranks, " ranks: ", refusal.why, "\n");
  absl::StrAppend(&text, "WEIGHTS to PEAK, SENT and STREAMED (model.residency=streamed) are of one rank, the fullest.\n\n");
  absl::StrAppend(&text, FormatTable({{"work", WorkloadLine(workload)}, {"machine", MachineLine(machine)}}), "\n");
  return absl::StrCat(text, Assumptions(workload, machine));
}

}  // namespace bearing::cli
