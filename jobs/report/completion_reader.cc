#include "jobs/report/completion_reader.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "jobs/report/artifact_json.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using Json = nlohmann::json;

// "markers: refusal", "llama-guard: not unsafe (0.12)".
std::vector<std::string> VerdictTexts(const Json& row, const Json& judges) {
  std::vector<std::string> texts;
  for (const Json& judge : judges) {
    const std::string name = judge.at("name").get<std::string>();
    const Json& said = row.at("verdicts").at(name);
    const Json& yes = said.at("verdict");
    std::string text = Concat(name, ": ",
                              yes.is_null()     ? "not judged"
                              : yes.get<bool>() ? ""
                                                : "not ",
                              yes.is_null() ? "" : judge.at("finds").get<std::string>());
    if (said.contains("score") && !said["score"].is_null()) text += absl::StrFormat(" (%.3g)", said["score"].get<double>());
    texts.push_back(std::move(text));
  }
  return texts;
}

// Do two judges say different things of the concept?
bool JudgesDiffer(const Json& row, const Json& judges) {
  int shows = 0, does_not = 0;
  for (const Json& judge : judges) {
    const Json& yes = row.at("verdicts").at(judge.at("name").get<std::string>()).at("verdict");
    if (yes.is_null()) continue;
    ++(yes.get<bool>() != judge.at("opposite").get<bool>() ? shows : does_not);
  }
  return shows > 0 && does_not > 0;
}

absl::Status ForEachLine(const std::string& file,
                         const std::function<absl::Status(size_t number, const std::string& line)>& use) {
  std::ifstream lines(file, std::ios::binary);
  if (!lines) return absl::UnavailableError(Concat("cannot read: file=", file));
  size_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) BEARING_RETURN_IF_ERROR(use(number, line));
  return lines.bad() ? absl::UnavailableError(Concat("cannot read: file=", file)) : absl::OkStatus();
}

// The first time through the file: counts, and which lines belong to which prompt.
class Survey {
 public:
  explicit Survey(ReportData& data) : data_(data) {}

  absl::Status Take(const Json& row) {
    const auto side = row.at("side").get<std::string>(), intervention = row.at("intervention").get<std::string>();
    const bool positive = side == "positive", shows = row.at("shows_concept").get<bool>();
    data_.counts.Add(side, intervention, row.at("category").get<std::string>(), shows);
    // A condition's lines are in the order of the prompts, so that the n-th line of each is the n-th prompt's.
    const uint32_t prompt = next_[{side, intervention}]++;
    std::vector<uint8_t>& marks = marks_[positive ? 0 : 1];
    if (prompt >= marks.size()) marks.resize(prompt + 1);
    if (JudgesDiffer(row, data_.judges)) marks[prompt] |= kJudgesDiffer;
    if (shows && (intervention == "ablation" || (!positive && intervention == "baseline"))) marks[prompt] |= kStillShows;
    places_.push_back(prompt * 2 + (positive ? 0 : 1));
    return absl::OkStatus();
  }

  void Choose() {
    for (size_t s = 0; s < 2; ++s) {
      const std::vector<uint8_t>& marks = marks_[s];
      if (marks.empty()) continue;
      const auto marked = [&](PromptMark mark) {
        return static_cast<size_t>(
            std::count_if(marks.begin(), marks.end(), [mark](uint8_t m) { return (m & static_cast<uint8_t>(mark)) != 0; }));
      };
      chosen_[s].resize(marks.size());
      const std::vector<size_t> prompts = ChoosePrompts(marks, kShownPrompts);
      for (const size_t prompt : prompts) chosen_[s][prompt] = true;
      data_.shown[s == 0 ? "positive" : "negative"] = {marks.size(), prompts.size(), marked(kJudgesDiffer),
                                                       marked(kStillShows)};
    }
  }

  bool IsShown(size_t line) const { return line < places_.size() && chosen_[places_[line] % 2][places_[line] / 2]; }

 private:
  ReportData& data_;
  std::map<std::pair<std::string, std::string>, uint32_t> next_;  // Lines so far, by side and intervention.
  std::vector<uint32_t> places_;                                  // Of each line: prompt x 2 + (0: positive, 1: negative).
  std::vector<uint8_t> marks_[2];                                 // Of each prompt, by side.
  std::vector<bool> chosen_[2];
};

}  // namespace

absl::Status TakeCompletions(const std::string& file, ReportData& data) {
  return GuardJson(file, [&]() -> absl::Status {
    Survey survey(data);
    BEARING_RETURN_IF_ERROR(ForEachLine(file, [&](size_t, const std::string& line) { return survey.Take(Json::parse(line)); }));
    survey.Choose();
    return ForEachLine(file, [&](size_t number, const std::string& line) {
      if (!survey.IsShown(number)) return absl::OkStatus();
      const Json row = Json::parse(line);
      data.completions.push_back({.side = row.at("side").get<std::string>(),
                                  .intervention = row.at("intervention").get<std::string>(),
                                  .category = row.at("category").get<std::string>(),
                                  .prompt = Shortened(row.at("prompt").get<std::string>(), kShownBytes),
                                  .response = Shortened(row.at("response").get<std::string>(), kShownBytes),
                                  .shows_concept = row.at("shows_concept").get<bool>(),
                                  .matched_marker = row.at("matched_marker").get<std::string>(),
                                  .verdicts = VerdictTexts(row, data.judges)});
      return absl::OkStatus();
    });
  });
}

}  // namespace bearing::jobs
