#include "jobs/plan/workload.h"

#include <algorithm>
#include <cmath>

#include "jobs/edit_fields.h"
#include "jobs/prompt_set.h"
#include "jobs/selection.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

constexpr int64_t kCharactersPerToken = 4;
constexpr int64_t kTemplateTokens = 20;
// Stands for the instruction when the template's own text is looked for; no real prompt holds it.
constexpr std::string_view kMarker = "BEARINGxINSTRUCTIONxMARKER";

int64_t EstimateTokens(const std::string& text) {
  return std::max<int64_t>(1, static_cast<int64_t>(text.size()) / kCharactersPerToken);
}

class Counter {
 public:
  Counter(const bearing::v1::JobSpec& spec, const bridge::ChatTokenizer* tokenizer, int64_t positions)
      : spec_(spec), tokenizer_(tokenizer), positions_(positions) {}

  absl::StatusOr<int64_t> Positions() const {
    if (tokenizer_ == nullptr) return positions_;
    BEARING_ASSIGN_OR_RETURN(const std::string text, Render(std::string(kMarker)));
    const size_t at = text.rfind(kMarker);
    if (at == std::string::npos) {
      return absl::FailedPreconditionError("the chat template does not keep the user's text as it is");
    }
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_->Encode(text.substr(at + kMarker.size())));
    return static_cast<int64_t>(ids.size());
  }

  absl::StatusOr<PromptLengths> Count(const bearing::v1::PromptSource& source) const {
    PromptLengths lengths;
    if (source.file().empty()) return lengths;
    BEARING_ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, LoadPrompts(source.file(), source.column(), source.count()));
    if (tokenizer_ == nullptr) {
      const int64_t system = spec_.prompts().system().empty() ? 0 : EstimateTokens(spec_.prompts().system());
      lengths.shared = kTemplateTokens + system;
      for (const Prompt& prompt : prompts) {
        lengths.tokens.push_back(lengths.shared + EstimateTokens(prompt.instruction) + positions_);
      }
      return lengths;
    }
    std::vector<std::string> texts;
    for (const Prompt& prompt : prompts) {
      BEARING_ASSIGN_OR_RETURN(std::string text, Render(prompt.instruction));
      texts.push_back(std::move(text));
    }
    BEARING_ASSIGN_OR_RETURN(const auto rows, tokenizer_->EncodeBatch(texts, /*threads=*/1));
    lengths.shared = static_cast<int64_t>(rows[0].size());
    for (const std::vector<int32_t>& row : rows) {
      const auto limit = static_cast<std::ptrdiff_t>(std::min<size_t>(lengths.shared, row.size()));
      lengths.shared = std::mismatch(row.begin(), row.begin() + limit, rows[0].begin()).first - row.begin();
      lengths.tokens.push_back(static_cast<int64_t>(row.size()));
    }
    return lengths;
  }

 private:
  absl::StatusOr<std::string> Render(const std::string& instruction) const {
    std::vector<bridge::Message> messages;
    if (!spec_.prompts().system().empty()) messages.push_back({"system", spec_.prompts().system()});
    messages.push_back({"user", instruction});
    return tokenizer_->Render(messages, /*add_generation_prompt=*/true);
  }

  const bearing::v1::JobSpec& spec_;
  const bridge::ChatTokenizer* tokenizer_;
  int64_t positions_;
};

absl::Status CountSide(const Counter& counter, const bearing::v1::PromptSide& source, bool evaluates, WorkloadSide& side) {
  BEARING_ASSIGN_OR_RETURN(side.train, counter.Count(source.train()));
  BEARING_ASSIGN_OR_RETURN(side.validation, counter.Count(source.validation()));
  if (!evaluates) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(side.test, counter.Count(source.test()));
  return absl::OkStatus();
}

// At least one where there is one: a job in which no candidate passes fails.
int64_t Share(double share, int64_t of) {
  return std::min(of, std::max<int64_t>(1, std::llround(share * static_cast<double>(of))));
}

}  // namespace

absl::StatusOr<Workload> MakeWorkload(const bearing::v1::JobSpec& spec, const sharding::ModelConfig& config,
                                      const bridge::ChatTokenizer* tokenizer, const WorkloadOptions& options) {
  Workload workload;
  const Counter counter(spec, tokenizer, options.positions);
  BEARING_ASSIGN_OR_RETURN(workload.positions, counter.Positions());
  const bool evaluates = !spec.evaluate().skip();
  BEARING_RETURN_IF_ERROR(CountSide(counter, spec.prompts().positive(), evaluates, workload.positive));
  BEARING_RETURN_IF_ERROR(CountSide(counter, spec.prompts().negative(), evaluates, workload.negative));
  workload.estimated = tokenizer == nullptr;
  workload.how = workload.estimated ? Concat("estimated: a token for every ", kCharactersPerToken, " characters, ",
                                             kTemplateTokens, " for the template in front and ", options.positions,
                                             " behind (no tokenizer in the model folder)")
                                    : "counted with the model's tokenizer and chat template";

  SelectionRule rule;
  rule.prune_layers = spec.select().prune_layers();
  rule.num_layers = config.num_layers();
  const std::vector<int> positions(spec.select().positions().begin(), spec.select().positions().end());
  const std::vector<int> layers(spec.select().layers().begin(), spec.select().layers().end());
  workload.complete = spec.select().complete();
  for (const Candidate& candidate :
       CandidateGrid(static_cast<int>(workload.positions), static_cast<int>(config.num_layers()), positions, layers)) {
    // At the input of layer 0 the template's tokens are the same in all prompts: no difference, no candidate.
    if (candidate.layer == 0 || (!workload.complete && candidate.layer >= rule.first_pruned_layer())) continue;
    workload.layers.push_back(candidate.layer);
  }
  workload.to_kl = workload.complete ? workload.num_candidates() : Share(options.shares.induce, workload.num_candidates());
  workload.to_bypass = workload.complete ? workload.num_candidates() : Share(options.shares.kl, workload.to_kl);
  workload.filter = spec.collect().filter();
  workload.derives_tokens = spec.concept_spec().token_ids().empty() && spec.concept_spec().tokens().empty();
  workload.max_new_tokens = evaluates ? spec.evaluate().max_new_tokens() : 0;
  workload.max_batch = spec.collect().max_batch();
  workload.writes_checkpoint = !spec.edit().skip() && WritesForm(spec.edit(), kCheckpointForm);
  workload.writes_adapter = !spec.edit().skip() && WritesForm(spec.edit(), kLoraForm);
  workload.keep_tied = spec.edit().keep_tied();
  return workload;
}

Workload WorstCase(Workload workload) {
  workload.to_kl = workload.num_candidates();
  workload.to_bypass = workload.num_candidates();
  return workload;
}

}  // namespace bearing::jobs
