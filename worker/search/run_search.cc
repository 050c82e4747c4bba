#include "worker/search/run_search.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "sharding/status_macros.h"
#include "worker/intervention_of.h"
#include "worker/search/search_front.h"
#include "worker/search/search_journal.h"
#include "worker/search/search_output.h"
#include "worker/search/search_space.h"

namespace bearing::worker {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Tokens of a forward pass, where memory allows as many: a number of its own, so that the passes of a search, and with them the
// last bits of its scores, do not depend on how much memory is free.
constexpr int64_t kTokens = 4096;

// Another mathematical library may draw a point that differs in its last bits.
constexpr double kSamePoint = 1e-9;

class SilentObserver final : public JobObserver {
 public:
  void OnProgress(const bearing::v1::Progress&) override {}
  void OnStageDone(const bearing::v1::StageTime&) override {}
  absl::Status ShouldStop() override { return absl::OkStatus(); }
};

// A line on standard error that is overwritten.
class ProgressLine {
 public:
  explicit ProgressLine(bool show) : show_(show && isatty(STDERR_FILENO) != 0) {}
  ~ProgressLine() {
    if (shown_) std::fputc('\n', stderr);
  }
  void Show(const std::string& text) {
    if (!show_) return;
    shown_ = true;
    std::fprintf(stderr, "\r%-78s", text.c_str());
    std::fflush(stderr);
  }

 private:
  const bool show_;
  bool shown_ = false;
};

class Search {
 public:
  Search(const SearchOptions& options, SearchInputs& inputs, const SearchSpace& space, steer::Replicas& replicas)
      : options_(options),
        inputs_(inputs),
        context_(inputs.context),
        space_(space),
        replicas_(replicas),
        scorer_(replicas, inputs.positive, inputs.negative, options.screen, inputs.metric_tokens,
                std::min(inputs.context.token_budget, kTokens)),
        progress_(!options.no_progress && inputs.context.is_rank0()) {}

  absl::Status Run() {
    const Clock::time_point start = Clock::now();
    context_.token_budget = std::min(context_.token_budget, kTokens);
    BEARING_RETURN_IF_ERROR(OpenJournal());
    BEARING_ASSIGN_OR_RETURN(result_.baseline, scorer_.RunBaseline());
    if (!std::isfinite(result_.baseline.probability)) {
      return absl::FailedPreconditionError("the model's answers to the positive prompts hold NaN");
    }
    StartOptimizer();
    const Clock::time_point trials_start = Clock::now();
    for (int64_t generation = 0; Asked() < options_.trials; ++generation) {
      BEARING_RETURN_IF_ERROR(RunGeneration(generation));
    }
    result_.trial_seconds = std::chrono::duration<double>(Clock::now() - trials_start).count();
    const std::vector<int64_t> chosen = ChoosePoints(result_.trials, options_.points, reference_);
    if (chosen.empty()) return absl::FailedPreconditionError("no trial has a score: the model's answers hold NaN");
    progress_.Show(absl::StrFormat("answers of %d points", chosen.size()));
    BEARING_ASSIGN_OR_RETURN(result_.points,
                             CompletePoints(inputs_, options_, space_, result_.trials, chosen, replicas_, Journal(), {}));
    result_.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return context_.OnRank0([&]() -> absl::Status {
      BEARING_RETURN_IF_ERROR(WriteSearch(inputs_, options_, space_, result_, *journal_));
      Print();
      return absl::OkStatus();
    });
  }

 private:
  int64_t Asked() const { return static_cast<int64_t>(result_.trials.size()); }
  SearchJournal* Journal() { return journal_.has_value() ? &*journal_ : nullptr; }

  absl::Status OpenJournal() {
    return context_.OnRank0([&]() -> absl::Status {
      std::error_code error;
      std::filesystem::create_directories(options_.out, error);
      if (error) return absl::InternalError(absl::StrCat("cannot make the folder: ", options_.out, ": ", error.message()));
      // What decides which trials are made, and what they give.
      result_.key = {{"model_digest", context_.model_digest},
                     {"dtype", context_.spec.model().dtype()},
                     {"prompts", jobs::Sha256OfBytes(json{inputs_.positive, inputs_.negative}.dump())},
                     {"metric_tokens", inputs_.metric_tokens},
                     {"markers", std::vector<std::string>(context_.spec.concept_spec().markers().begin(),
                                                          context_.spec.concept_spec().markers().end())},
                     {"max_new_tokens", options_.max_new_tokens},
                     {"layer", inputs_.layer},
                     {"position", inputs_.position},
                     {"first_layer", space_.first_layer()},
                     {"last_layer", space_.last_layer()},
                     {"seed", options_.seed},
                     {"population", options_.population},
                     {"screen", options_.screen},
                     {"kl_cap", options_.kl_cap}};
      BEARING_ASSIGN_OR_RETURN(SearchJournal journal,
                               SearchJournal::Open(absl::StrCat(options_.out, "/trials.jsonl"), result_.key));
      journal_.emplace(std::move(journal));
      return absl::OkStatus();
    });
  }

  // Rank 0 decides alone; the others are told what to run.
  void StartOptimizer() {
    reference_ = ReferenceOf(result_.baseline, options_.kl_cap);
    if (!context_.is_rank0()) return;
    steer::MoCma::Options optimizer;
    optimizer.dimension = space_.dimension();
    optimizer.population = static_cast<size_t>(options_.population);
    optimizer.seed = options_.seed;
    optimizer.reference = reference_;
    optimizer.start = space_.Start(static_cast<double>(inputs_.layer));
    optimizer_.emplace(optimizer);
  }

  absl::Status RunGeneration(int64_t generation) {
    const int64_t first = Asked();
    const int64_t count = std::min(options_.population, options_.trials - first);
    BEARING_ASSIGN_OR_RETURN(json asked, context_.FromRank0([&] { return Ask(first, count); }));
    if (asked.contains("recorded")) {
      for (const json& line : asked["recorded"]) {
        BEARING_ASSIGN_OR_RETURN(Trial trial, TrialOf(line));
        result_.trials.push_back(std::move(trial));
      }
      result_.resumed_trials += count;
    } else {
      std::vector<Trial> trials;
      for (const json& point : asked.at("points")) trials.push_back({generation, point.get<steer::Point>(), {}, {}});
      BEARING_RETURN_IF_ERROR(Score(trials));
      result_.trials.insert(result_.trials.end(), trials.begin(), trials.end());
    }
    return context_.OnRank0([&]() -> absl::Status {
      if (!asked.contains("recorded")) {
        std::vector<json> lines;
        for (int64_t t = first; t < Asked(); ++t) lines.push_back(TrialJson(t, result_.trials[static_cast<size_t>(t)]));
        BEARING_RETURN_IF_ERROR(journal_->Append(lines));
      }
      // Those that a short last generation leaves out have no result.
      std::vector<std::optional<steer::Objectives>> told(static_cast<size_t>(options_.population));
      for (int64_t t = first; t < Asked(); ++t) {
        told[static_cast<size_t>(t - first)] = ObjectivesOf(result_.trials[static_cast<size_t>(t)].score);
      }
      optimizer_->Tell(told);
      progress_.Show(absl::StrFormat("%d of %d trials", Asked(), options_.trials));
      return absl::OkStatus();
    });
  }

  // The points of the next generation, or its trials where the journal has them all.
  absl::StatusOr<json> Ask(int64_t first, int64_t count) {
    const std::vector<steer::Point>& points = optimizer_->Ask();
    json recorded = json::array();
    json asked = json::array();
    for (int64_t i = 0; i < count; ++i) {
      const steer::Point& point = points[static_cast<size_t>(i)];
      asked.push_back(point);
      const json* const line = journal_->Trial(first + i);
      if (line == nullptr) continue;
      BEARING_ASSIGN_OR_RETURN(const Trial trial, TrialOf(*line));
      const bool same =
          trial.point.size() == point.size() && std::equal(point.begin(), point.end(), trial.point.begin(),
                                                           [](double a, double b) { return std::abs(a - b) < kSamePoint; });
      if (!same) {
        return absl::DataLossError(absl::StrCat("the journal has another trial than this search asks for: file=", options_.out,
                                                "/trials.jsonl trial=", first + i));
      }
      recorded.push_back(*line);
    }
    return static_cast<int64_t>(recorded.size()) == count ? json{{"recorded", recorded}} : json{{"points", asked}};
  }

  // Screens the trials together, and completes those that the population would take in.
  absl::Status Score(std::vector<Trial>& trials) {
    std::vector<size_t> runnable;
    std::vector<model::Intervention> interventions;
    for (size_t t = 0; t < trials.size(); ++t) {
      const absl::StatusOr<edit::EditSpec> spec = space_.SpecOf(space_.Decode(trials[t].point));
      if (!spec.ok()) continue;  // Nothing is left of its direction: a trial without a score.
      BEARING_ASSIGN_OR_RETURN(model::Intervention removal, RemovalOf(*spec, space_.num_layers(), space_.d_model()));
      runnable.push_back(t);
      interventions.push_back(std::move(removal));
    }
    BEARING_ASSIGN_OR_RETURN(const std::vector<steer::TrialScore> screens, scorer_.Screen(interventions));
    for (size_t i = 0; i < runnable.size(); ++i) trials[runnable[i]].screen = screens[i];
    BEARING_ASSIGN_OR_RETURN(const json passed, context_.FromRank0([&]() -> absl::StatusOr<json> { return Passed(trials); }));
    std::vector<model::Intervention> completed;
    std::vector<steer::TrialScore> screened;
    std::vector<size_t> which;
    for (size_t i = 0; i < runnable.size(); ++i) {
      if (!passed.at(runnable[i]).get<bool>()) continue;
      which.push_back(runnable[i]);
      completed.push_back(interventions[i]);
      screened.push_back(screens[i]);
    }
    BEARING_ASSIGN_OR_RETURN(const std::vector<steer::TrialScore> scores, scorer_.Complete(completed, screened));
    for (size_t i = 0; i < which.size(); ++i) trials[which[i]].score = scores[i];
    return absl::OkStatus();
  }

  // Of each trial: would the population take it in, were the screens all there is? The first generation is the population.
  json Passed(const std::vector<Trial>& trials) const {
    std::vector<bool> passed(trials.size(), false);
    std::vector<steer::Objectives> values;
    std::vector<std::optional<size_t>> owner;
    for (size_t t = 0; t < trials.size(); ++t) {
      const std::optional<steer::Objectives> value = ObjectivesOf(trials[t].screen);
      if (!value.has_value()) continue;
      values.push_back(*value);
      owner.emplace_back(t);
    }
    const std::vector<size_t> parents = optimizer_->Parents();
    for (const size_t parent : parents) {
      const std::optional<steer::Objectives> value = ObjectivesOf(result_.trials[parent].screen);
      if (!value.has_value()) continue;
      values.push_back(*value);
      owner.emplace_back(std::nullopt);
    }
    const size_t places = parents.empty() ? values.size() : std::min(values.size(), parents.size());
    for (const size_t chosen : steer::SelectBest(values, places, reference_)) {
      if (owner[chosen].has_value()) passed[*owner[chosen]] = true;
    }
    return passed;
  }

  void Print() const {
    std::cout << absl::StreamFormat("%d trials in %.1f s (%d of them from the journal), then answers: %.1f s in all\n", Asked(),
                                    result_.trial_seconds, result_.resumed_trials, result_.seconds);
    const SearchPoint& before = result_.points.front();
    std::cout << absl::StreamFormat("%-6s %-6s %9s %9s %9s  %s\n", "point", "trial", "shown", "KL", "metric", "layer");
    std::cout << absl::StreamFormat("%-6s %-6s %4d/%-4d %9s %9.3f\n", "model", "", before.shown, before.answers, "",
                                    result_.baseline.metric);
    for (size_t p = 1; p < result_.points.size(); ++p) {
      const SearchPoint& point = result_.points[p];
      const Trial& trial = result_.trials[static_cast<size_t>(point.trial)];
      std::cout << absl::StreamFormat("%-6d %-6d %4d/%-4d %9.4f %9.3f  %.2f%s\n", p - 1, point.trial, point.shown,
                                      point.answers, trial.score->kl, trial.score->metric, space_.Decode(trial.point).layer,
                                      point.on_front ? "" : " (not on the front)");
    }
    std::cout << options_.out << "/search.json\n";
  }

  const SearchOptions& options_;
  SearchInputs& inputs_;
  JobContext& context_;
  const SearchSpace& space_;
  steer::Replicas& replicas_;
  steer::TrialScorer scorer_;
  ProgressLine progress_;
  steer::Objectives reference_ = {0, 0};
  SearchResult result_;                    // Trials on every rank, the rest on rank 0.
  std::optional<SearchJournal> journal_;   // Rank 0.
  std::optional<steer::MoCma> optimizer_;  // Rank 0.
};

absl::Status CheckOptions(const SearchOptions& options) {
  if (options.positive.empty() != options.negative.empty()) {
    return absl::InvalidArgumentError("--positive and --negative go together: both sides' prompts are of one search");
  }
  if (options.trials < 1 || options.population < 2 || options.screen < 1 || options.points < 1) {
    return absl::InvalidArgumentError("--trials, --screen and --points must be at least 1, --population at least 2");
  }
  if (!(options.kl_cap > 0)) return absl::InvalidArgumentError("--kl-cap must be above 0");
  return absl::OkStatus();
}

absl::Status RunAll(comm::Communicator& comm, const SearchOptions& options) {
  BEARING_RETURN_IF_ERROR(CheckOptions(options));
  SilentObserver observer;
  SearchInputs inputs;
  comm.SetStage("search");
  BEARING_RETURN_IF_ERROR(LoadSearchInputs(comm, options, &observer, inputs));
  BEARING_ASSIGN_OR_RETURN(const SearchSpace space,
                           SearchSpace::Make(inputs.difference_LD, inputs.negative_mean_LD, options.first_layer,
                                             options.last_layer.value_or(inputs.context.reader->config().num_layers() - 1)));
  if (inputs.context.spec.concept_spec().markers().empty()) {
    return absl::FailedPreconditionError("the run's concept has no markers: answers cannot be counted");
  }
  BEARING_ASSIGN_OR_RETURN(steer::Replicas* const replicas, inputs.context.GetReplicas());
  return Search(options, inputs, space, *replicas).Run();
}

}  // namespace

absl::Status RunSearch(comm::Communicator& comm, const SearchOptions& options) {
  try {
    return RunAll(comm, options);
  } catch (const std::bad_alloc&) {
    if (comm.size() > 1) comm.Abort("out of memory");
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    if (comm.size() > 1) comm.Abort(error.what());
    return absl::InternalError(error.what());
  }
}

}  // namespace bearing::worker
