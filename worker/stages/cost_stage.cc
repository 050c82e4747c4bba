// Runs the measures of `costs`, one after the other. Each is kept when it is finished, so that an interrupted stage goes on
// with the next one.
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/cost_run.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Task {
  std::string name;  // Of its files in the journal.
  std::function<Measurement(CostRun&)> run;
};

std::vector<Task> TasksOf(const bearing::v1::Costs& costs) {
  std::vector<Task> tasks;
  if (costs.has_completions()) {
    for (const char* side : {"negative", "positive"}) {
      if (costs.completions().side() != side && costs.completions().side() != "both") continue;
      tasks.push_back({absl::StrCat("completions-", side), [side](CostRun& run) { return MeasureCompletions(run, side); }});
    }
  }
  const auto add = [&tasks](const char* kind, const auto& sets, auto measure) {
    for (int i = 0; i < sets.size(); ++i) {
      tasks.push_back({absl::StrCat(kind, "-", i), [&set = sets[i], measure](CostRun& run) { return measure(run, set); }});
    }
  };
  add("texts", costs.texts(), MeasureTexts);
  add("choices", costs.choices(), MeasureChoices);
  add("answers", costs.answers(), MeasureAnswers);
  return tasks;
}

// Finished measures, below .bearing of the output folder. The folder is that of one spec and one model already; what else a
// measure depends on is the direction and the completions. Rank 0 alone uses it.
class Journal {
 public:
  static absl::StatusOr<Journal> Open(const JobContext& context) {
    Journal journal;
    journal.folder_ = context.output->PathOf(".bearing/costs");
    for (const char* name : {"direction.safetensors", "completions.jsonl"}) {
      const std::string path = context.output->PathOf(name);
      if (!fs::exists(path)) continue;
      BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::Sha256OfFile(path));
      absl::StrAppend(&journal.inputs_, digest, " ");
    }
    std::error_code error;
    fs::create_directories(journal.folder_, error);
    if (error) return absl::UnavailableError(absl::StrCat("cannot make the folder: ", error.message(), ": ", journal.folder_));
    return journal;
  }

  std::string ItemsPath(const Task& task) const { return absl::StrCat(folder_, "/", task.name, ".jsonl"); }

  // Null unless the measure was finished with the same inputs.
  json Find(const Task& task) const {
    const absl::StatusOr<std::string> text = jobs::ReadFile(PathOf(task));
    if (!text.ok()) return nullptr;
    const json document = json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object() || document.value("inputs", "") != inputs_) return nullptr;
    return document.value("measurement", json());
  }

  absl::Status Keep(const Task& task, const json& measurement) const {
    return jobs::WriteFileAtomically(PathOf(task), json{{"inputs", inputs_}, {"measurement", measurement}}.dump());
  }

  void Remove() const {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

 private:
  std::string PathOf(const Task& task) const { return absl::StrCat(folder_, "/", task.name, ".json"); }

  std::string folder_, inputs_;
};

// The measure from the journal, or run and kept. Collective; rank 0 gets it.
Measurement RunTask(CostRun& run, const Task& task, const Journal& journal) {
  BEARING_ASSIGN_OR_RETURN(const json kept,
                           run.context.FromRank0([&]() -> absl::StatusOr<json> { return journal.Find(task); }));
  if (!kept.is_null()) return kept;
  const bool with_items = run.context.spec.costs().items();
  std::ofstream items;
  if (run.context.is_rank0() && with_items) {
    items.open(journal.ItemsPath(task), std::ios::binary | std::ios::trunc);
    run.items = &items;
  }
  absl::StatusOr<json> measured = task.run(run);
  run.items = nullptr;
  if (!measured.ok()) return measured.status();
  BEARING_RETURN_IF_ERROR(run.context.OnRank0([&]() -> absl::Status {
    if (with_items && !items.flush()) {
      return absl::UnavailableError(absl::StrCat("cannot write: file=", journal.ItemsPath(task)));
    }
    return journal.Keep(task, *measured);
  }));
  return measured;
}

// The items of all measures in one file, in their order.
absl::Status JoinItems(const Journal& journal, const std::vector<Task>& tasks, const std::string& path) {
  const std::string partial = path + ".partial";
  {
    std::ofstream out(partial, std::ios::binary | std::ios::trunc);
    for (const Task& task : tasks) {
      std::ifstream in(journal.ItemsPath(task), std::ios::binary);
      if (in.peek() != std::ifstream::traits_type::eof()) out << in.rdbuf();
    }
    if (!out.flush()) return absl::UnavailableError(absl::StrCat("cannot write: file=", partial));
  }
  std::error_code error;
  fs::rename(partial, path, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot rename: ", error.message(), ": file=", partial));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StageFiles> RunCost(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(steer::Replicas * replicas, context.GetReplicas());
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context));
  const bearing::v1::Costs& costs = context.spec.costs();
  const double factor = context.spec.evaluate().addition_factor();
  CostRun run{context, *replicas, {"baseline", "ablation"}, {model::Intervention(), direction.Ablation()}};
  if (costs.addition()) {
    run.names.push_back("addition");
    run.interventions.push_back(direction.Addition(factor));
  }
  Journal journal;
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(journal, Journal::Open(context));
    return absl::OkStatus();
  }));
  const std::vector<Task> tasks = TasksOf(costs);
  json measurements = json::array();
  for (const Task& task : tasks) {
    BEARING_ASSIGN_OR_RETURN(json measured, RunTask(run, task, journal));
    measurements.push_back(std::move(measured));
  }
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    json document = {{"format", "bearing-costs/1"}, {"interventions", run.names}, {"measurements", measurements}};
    if (costs.addition()) document["addition_factor"] = factor;
    if (costs.items()) BEARING_RETURN_IF_ERROR(JoinItems(journal, tasks, context.output->PathOf("costs.jsonl")));
    BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(context.output->PathOf("costs.json"), document.dump(1) + "\n"));
    journal.Remove();
    return absl::OkStatus();
  }));
  return costs.items() ? StageFiles{"costs.json", "costs.jsonl"} : StageFiles{"costs.json"};
}

}  // namespace bearing::worker
