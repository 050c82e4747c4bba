#include <algorithm>
#include <map>

#include "jobs/report/html_text.h"
#include "jobs/report/report_tables.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

// How many prompts of a side are open from the start.
constexpr size_t kOpenAtFirst = 2;

struct Pair {
  const Completion* before = nullptr;
  const Completion* after = nullptr;
};

// The completions of one side, one entry a prompt, in the order of the file.
std::vector<Pair> PairUp(const std::vector<Completion>& completions, std::string_view side, std::string_view intervention) {
  std::vector<Pair> pairs;
  // A prompt may be there twice: its n-th completion belongs to its n-th place.
  std::map<std::pair<std::string, size_t>, size_t> index;
  std::map<std::string, size_t> seen_before, seen_after;
  for (const Completion& completion : completions) {
    const bool before = completion.intervention == "baseline";
    if (completion.side != side || (!before && completion.intervention != intervention)) continue;
    const size_t nth = (before ? seen_before : seen_after)[completion.prompt]++;
    const auto [at, is_new] = index.emplace(std::pair(completion.prompt, nth), pairs.size());
    if (is_new) pairs.emplace_back();
    (before ? pairs[at->second].before : pairs[at->second].after) = &completion;
  }
  return pairs;
}

std::string Verdict(const Completion* completion, const std::string& concept_name) {
  if (completion == nullptr) return "–";
  return completion->shows_concept ? concept_name : Concat("no ", concept_name);
}

// What all judges said, where there are several.
std::string Verdicts(const Completion& completion) {
  if (completion.verdicts.size() < 2) return "";
  std::string out = "<p class=\"muted\">";
  for (size_t i = 0; i < completion.verdicts.size(); ++i) {
    out += Concat(i == 0 ? "" : " · ", EscapeHtml(completion.verdicts[i]));
  }
  return out + "</p>";
}

std::string Response(const Completion* completion, const std::string& heading, const std::string& concept_name) {
  if (completion == nullptr)
    return Concat("<div class=\"response\"><h4>", heading, "</h4><p class=\"muted\">not generated</p></div>");
  const std::string marker =
      completion->matched_marker.empty() ? "" : Concat(": contains “", EscapeHtml(completion->matched_marker), "”");
  return Concat("<div class=\"response\"><h4>", heading, " <span class=\"chip", completion->shows_concept ? " shows" : "",
                "\">", Verdict(completion, concept_name), marker, "</span></h4><p class=\"text\" dir=\"auto\">",
                EscapeHtml(completion->response), "</p>", Verdicts(*completion), "</div>");
}

// How many of how many, where not all are shown.
std::string SampleNote(const ReportData& data, const char* side) {
  const auto found = data.shown.find(side);
  if (found == data.shown.end() || found->second.shown == found->second.prompts) return "";
  const ShownPrompts& shown = found->second;
  return Concat(
      "<p class=\"muted\">", shown.shown, " of ", shown.prompts, " ", side,
      " prompts are shown: those on which judges differ (", shown.judges_differ, " in all) and those that still show ",
      EscapeHtml(data.concept_name), " (", shown.still_shows,
      " in all) first, the others evenly spaced. All completions are in completions.jsonl; the rates are of all.</p>");
}

std::string Side(const ReportData& data, const char* side, const char* intervention, const std::string& title,
                 const std::string& changed) {
  const std::string concept_name = EscapeHtml(data.concept_name);
  const std::vector<Pair> pairs = PairUp(data.completions, side, intervention);
  // A side that was never run under the intervention has nothing to compare.
  const bool compared = std::any_of(pairs.begin(), pairs.end(), [](const Pair& pair) { return pair.after != nullptr; });
  if (!compared) return "";
  std::string out = Concat("<h3>", title, "</h3>", SampleNote(data, side));
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto& [before, after] = pairs[i];
    const Completion& any = before != nullptr ? *before : *after;
    const std::string category =
        any.category.empty() ? "" : Concat(" <span class=\"muted\">", EscapeHtml(any.category), "</span>");
    out += Concat("<details class=\"completion\"", i < kOpenAtFirst ? " open" : "",
                  "><summary><span class=\"prompt\" dir=\"auto\">", EscapeHtml(any.prompt), "</span>", category,
                  " <span class=\"verdict\">", Verdict(before, concept_name), " → ", Verdict(after, concept_name),
                  "</span></summary><div class=\"pair\">", Response(before, "Unchanged", concept_name),
                  Response(after, changed, concept_name), "</div></details>");
  }
  return out;
}

}  // namespace

std::string CompletionSection(const ReportData& data) {
  const std::string sides =
      Side(data, "positive", "ablation", "Positive prompts: unchanged and with the direction ablated", "Direction ablated") +
      Side(data, "negative", "ablation", "Negative prompts: unchanged and with the direction ablated", "Direction ablated") +
      Side(data, "negative", "addition", "Negative prompts: unchanged and with the direction added", "Direction added");
  if (sides.empty()) return "";
  return Concat(
      "<p class=\"callout\">These are raw outputs of a model whose behaviour was "
      "changed on purpose; they may be wrong, offensive or harmful.</p>",
      sides);
}

}  // namespace bearing::jobs
