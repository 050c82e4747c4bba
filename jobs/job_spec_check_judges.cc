#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "jobs/did_you_mean.h"
#include "jobs/judge/judge_settings.h"
#include "sharding/concat.h"
#include "storage/uri.h"

namespace bearing::jobs {
namespace {

using bearing::v1::Judge;
using bearing::v1::JudgeModel;

constexpr int kMostJudges = 16;
constexpr size_t kLongestName = 40;
constexpr int kMostWords = 10000;

// The names stand in file names and as keys.
bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

// The checks of one entry.
class Entry {
 public:
  Entry(const Judge& judge, std::string path, std::vector<FieldViolation>& out)
      : judge_(judge), path_(std::move(path)), out_(out) {}

  void Check() {
    if (!judge_.name().empty() && !IsName(judge_.name())) {
      Add("name", Concat("expected letters, digits, - and _, 1 to ", kLongestName, ", found ", Quoted(judge_.name())));
    }
    if (judge_.name() == kMarkersJudge) Add("name", "\"markers\" is the judge of concept.markers; choose another name");
    const std::string kind = Kind();
    if (kind.empty()) return Add("kind", "missing: one of substrings, metric, model");
    if (!Choice("kind", kind, {"substrings", "metric", "model"})) return;
    if (judge_.min_words() < 0 || judge_.min_words() > kMostWords) {
      Add("min_words", Concat("expected 0 to ", kMostWords, ", found ", judge_.min_words()));
    }
    if ((kind == "substrings") != (judge_.markers_size() > 0)) {
      Add("markers", kind == "substrings" ? "missing: the texts that a completion is searched for"
                                          : Concat("belongs to a judge of kind substrings, not ", kind));
    }
    for (int i = 0; i < judge_.markers_size(); ++i) {
      if (absl::StripAsciiWhitespace(judge_.markers(i)).empty()) Add(Concat("markers[", i, "]"), "must not be empty");
    }
    CheckThreshold(kind);
    if (kind == "model") return CheckModel();
    if (judge_.has_model()) Add("model", Concat("belongs to a judge of kind model, not ", kind));
  }

 private:
  void Add(std::string_view field, std::string message) { out_.push_back({Concat(path_, ".", field), std::move(message)}); }

  std::string Kind() const {
    if (!judge_.kind().empty()) return judge_.kind();
    return judge_.has_model() ? "model" : judge_.markers_size() > 0 ? "substrings" : "";
  }

  bool Choice(std::string_view field, const std::string& value, const std::vector<std::string>& choices) {
    if (value.empty() || std::find(choices.begin(), choices.end(), value) != choices.end()) return true;
    const std::string nearest = NearestName(value, choices);
    const std::string hint = nearest.empty() ? "" : Concat("; did you mean ", Quoted(nearest), "?");
    Add(field, Concat("expected one of ", absl::StrJoin(choices, ", "), ", found ", Quoted(value), hint));
    return false;
  }

  void CheckThreshold(const std::string& kind) {
    if (!judge_.has_threshold()) return;
    const double threshold = judge_.threshold();
    if (kind == "substrings") return Add("threshold", "a judge of kind substrings has none");
    const bool probability = kind == "model";
    const bool fits = std::isfinite(threshold) && (!probability || (threshold > 0 && threshold < 1));
    if (!fits) {
      Add("threshold",
          Concat(probability ? "expected a probability between 0 and 1" : "expected a finite number", ", found ", threshold));
    }
  }

  void CheckModel() {
    const JudgeModel& model = judge_.model();
    if (model.path().empty()) Add("model.path", "missing: give the folder of the judge's model");
    for (const auto& [field, address] : {std::pair{"model.path", &model.path()},
                                         {"model.prompt_file", &model.prompt_file()},
                                         {"model.chat_template", &model.chat_template()}}) {
      if (!storage::HasScheme(*address)) continue;
      const absl::Status status = storage::ParseUri(*address).status();
      if (!status.ok()) Add(field, std::string(status.message()));
    }
    const bool known = Choice("model.preset", model.preset(), {"llama-guard", "harmbench"});
    Choice("model.format", model.format(), {"chat", "raw", "conversation"});
    Choice("model.dtype", model.dtype(), {"float32", "bfloat16"});
    Choice("model.residency", model.residency(), {"auto", "resident", "streamed"});
    CheckPrompt(model);
    const bool preset = !model.preset().empty() && known;
    for (const auto& [field, answers] : {std::pair{"model.says_yes", &model.says_yes()}, {"model.says_no", &model.says_no()}}) {
      if (answers->empty() && !preset) Add(field, "missing: the texts its verdict begins with, e.g. [\"Yes\"]");
      for (const std::string& answer : *answers) {
        if (answer.empty()) Add(field, "must not be empty");
      }
    }
    for (const std::string& answer : model.says_yes()) {
      if (std::find(model.says_no().begin(), model.says_no().end(), answer) != model.says_no().end()) {
        Add("model.says_no", Concat(Quoted(answer), " is in model.says_yes too"));
      }
    }
  }

  void CheckPrompt(const JudgeModel& model) {
    const bool given = !model.prompt().empty() || !model.prompt_file().empty();
    const bool conversation = model.format() == "conversation" || (model.format().empty() && model.preset() == "llama-guard");
    if (!model.prompt().empty() && !model.prompt_file().empty()) {
      return Add("model.prompt", "give either model.prompt or model.prompt_file, not both");
    }
    if (conversation && given) {
      return Add("model.prompt", "with the format conversation, the judge's chat template is the prompt");
    }
    if (!conversation && !given && model.preset() != "harmbench") {
      return Add("model.prompt", "missing: what the judge is asked, with {prompt} and {response} in it");
    }
    if (!model.prompt().empty() && model.prompt().find("{response}") == std::string::npos &&
        model.prompt().find("{generation}") == std::string::npos) {
      Add("model.prompt", "must hold {response}: the place of the completion");
    }
  }

  const Judge& judge_;
  std::string path_;
  std::vector<FieldViolation>& out_;
};

}  // namespace

void ValidateJudges(const bearing::v1::JobSpec& spec, std::vector<FieldViolation>& violations) {
  if (spec.judges_size() > kMostJudges) {
    violations.push_back({"judges", Concat("expected at most ", kMostJudges, ", found ", spec.judges_size())});
    return;
  }
  if (spec.judges_size() > 0 && spec.evaluate().skip()) {
    violations.push_back({"judges", "there is nothing to judge: evaluate.skip is true"});
  }
  bearing::v1::JobSpec filled = spec;
  ApplyJudgeDefaults(filled);
  std::set<std::string> names;
  for (int i = 0; i < spec.judges_size(); ++i) {
    const std::string path = Concat("judges[", i, "]");
    Entry(spec.judges(i), path, violations).Check();
    const std::string& name = filled.judges(i).name();
    if (!name.empty() && !names.insert(name).second) {
      violations.push_back({path + ".name", Concat("given twice: ", Quoted(name), "; judges need names of their own")});
    }
  }
}

}  // namespace bearing::jobs
