#include <cmath>
#include <filesystem>
#include <functional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "jobs/cost_fields.h"
#include "jobs/did_you_mean.h"
#include "jobs/edit_fields.h"
#include "jobs/job_spec.h"
#include "jobs/judge/judge_settings.h"
#include "jobs/prompt_fields.h"
#include "jobs/prompt_set.h"
#include "sharding/concat.h"
#include "storage/uri.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;

constexpr size_t kMaxNameLength = 63;
constexpr int kMaxRanks = 1024;
constexpr int kMaxNewTokens = 8192;
constexpr int kHighestPriority = 100;
constexpr int kMostAttempts = 1000;
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelLength = 256;

class Violations {
 public:
  void Add(std::string field, std::string message) { list_.push_back({std::move(field), std::move(message)}); }

  void Unless(bool holds, std::string_view field, std::string_view expected, const std::string& found) {
    if (!holds) Add(std::string(field), Concat("expected ", expected, ", found ", found));
  }

  void Append(const std::function<void(std::vector<FieldViolation>&)>& check) { check(list_); }

  std::vector<FieldViolation> Take() { return std::move(list_); }

 private:
  std::vector<FieldViolation> list_;
};

bool IsJobName(std::string_view name) {
  const auto is_edge = [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); };
  if (name.empty() || name.size() > kMaxNameLength || !is_edge(name.front()) || !is_edge(name.back())) return false;
  for (const char c : name) {
    if (!is_edge(c) && c != '-') return false;
  }
  return true;
}

// A setting that is one of a few words; empty stands for the default.
void CheckChoice(const std::string& value, std::string_view field, const std::vector<std::string>& choices, Violations& out) {
  if (value.empty()) return;
  for (const std::string& choice : choices) {
    if (value == choice) return;
  }
  const std::string nearest = NearestName(value, choices);
  const std::string hint = nearest.empty() ? "" : Concat("; did you mean ", Quoted(nearest), "?");
  out.Add(std::string(field), Concat("expected one of ", absl::StrJoin(choices, ", "), ", found ", Quoted(value), hint));
}

template <typename List>
void CheckUnique(const List& values, std::string_view field, Violations& out) {
  std::set<typename List::value_type> seen;
  for (const auto& value : values) {
    if (!seen.insert(value).second) out.Add(std::string(field), Concat("given twice: ", value));
  }
}

// Addresses are checked here, where the field's name is known; whether something is there is seen when it is read.
void CheckAddresses(const JobSpec& spec, Violations& out) {
  const auto check = [&out](const std::string& field, const std::string& address) {
    if (!storage::HasScheme(address)) return;
    const absl::Status status = storage::ParseUri(address).status();
    if (!status.ok()) out.Add(field, std::string(status.message()));
  };
  check("model.path", spec.model().path());
  check("model.chat_template", spec.model().chat_template());
  check("output", spec.output());
  for (const PromptField& field : PromptFields()) {
    const bearing::v1::PromptSource* source = FindSource(spec, field);
    if (source != nullptr) check(field.Path() + ".file", source->file());
  }
}

void CheckModel(const JobSpec& spec, Violations& out) {
  if (spec.model().path().empty()) out.Add("model.path", "missing: give the folder of the model");
  CheckChoice(spec.model().dtype(), "model.dtype", {"float32", "bfloat16"}, out);
  CheckChoice(spec.model().residency(), "model.residency", {"auto", "resident", "streamed"}, out);
}

void CheckConcept(const JobSpec& spec, Violations& out) {
  const bearing::v1::Concept& wanted = spec.concept_spec();
  if (wanted.name().empty()) out.Add("concept.name", "missing: name the concept for titles and reports, e.g. refusal");
  if (wanted.tokens_size() > 0 && wanted.token_ids_size() > 0) {
    out.Add("concept.tokens", "give either concept.tokens or concept.token_ids, not both");
  }
  for (const int id : wanted.token_ids()) out.Unless(id >= 0, "concept.token_ids", "ids of 0 or more", Concat(id));
  CheckUnique(wanted.token_ids(), "concept.token_ids", out);
  for (int i = 0; i < wanted.tokens_size(); ++i) {
    if (wanted.tokens(i).empty()) out.Add(Concat("concept.tokens[", i, "]"), "must not be empty");
  }
  CheckUnique(wanted.tokens(), "concept.tokens", out);
  for (int i = 0; i < wanted.markers_size(); ++i) {
    // An empty or blank marker would match nearly every response.
    if (absl::StripAsciiWhitespace(wanted.markers(i)).empty()) {
      out.Add(Concat("concept.markers[", i, "]"), "must not be empty");
    }
  }
  if (wanted.markers_size() == 0 && wanted.name() != "refusal" && spec.judges_size() == 0 && !spec.evaluate().skip()) {
    out.Add("concept.markers",
            "missing: say which texts in a response show the concept (only \"refusal\" has a list of its own), give judges, or "
            "set evaluate.skip to true");
  }
}

void CheckPrompts(const JobSpec& spec, Violations& out) {
  for (const PromptField& field : PromptFields()) {
    if (!IsUsed(spec, field)) continue;
    const bearing::v1::PromptSource* source = FindSource(spec, field);
    if (source == nullptr || source->file().empty()) {
      const bool test = std::string_view(field.set) == "test";
      out.Add(field.Path() + ".file",
              Concat("missing: give a file with prompts", test ? ", or set evaluate.skip to true" : ""));
      continue;
    }
    if (!IsPromptFormat(source->file())) {
      out.Add(field.Path() + ".file", Concat("expected a .json, .jsonl, .csv or .txt file, found ", Quoted(source->file())));
    }
    out.Unless(source->count() >= 0, field.Path() + ".count", "0 (all) or more", Concat(source->count()));
  }
}

void CheckSelect(const JobSpec& spec, Violations& out) {
  const bearing::v1::Select& select = spec.select();
  const auto number = [](double value) { return Concat(value); };
  if (select.has_kl_max()) {
    out.Unless(std::isfinite(select.kl_max()) && select.kl_max() > 0, "select.kl_max", "a number above 0",
               number(select.kl_max()));
  }
  if (select.has_induce_min()) {
    out.Unless(std::isfinite(select.induce_min()), "select.induce_min", "a finite number", number(select.induce_min()));
  }
  if (select.has_prune_layers()) {
    const double share = select.prune_layers();
    out.Unless(share >= 0 && share < 1, "select.prune_layers", "a share of at least 0 and below 1", number(share));
  }
  CheckChoice(select.when_none_passes(), "select.when_none_passes", {"fail", "relax_kl", "relax_induce"}, out);
  for (const int layer : select.layers()) out.Unless(layer >= 0, "select.layers", "layers of 0 or more", Concat(layer));
  for (const int position : select.positions()) {
    out.Unless(position < 0, "select.positions", "negative positions (-1 is the last token)", Concat(position));
  }
  CheckUnique(select.layers(), "select.layers", out);
  CheckUnique(select.positions(), "select.positions", out);
}

void CheckEvaluate(const JobSpec& spec, Violations& out) {
  const bearing::v1::Evaluate& evaluate = spec.evaluate();
  if (evaluate.has_max_new_tokens()) {
    const int tokens = evaluate.max_new_tokens();
    out.Unless(tokens >= 1 && tokens <= kMaxNewTokens, "evaluate.max_new_tokens", Concat("1 to ", kMaxNewTokens),
               Concat(tokens));
  }
  if (evaluate.has_addition_factor()) {
    const double factor = evaluate.addition_factor();
    out.Unless(std::isfinite(factor) && factor != 0, "evaluate.addition_factor", "a finite number other than 0",
               Concat(factor));
  }
  const double temperature = evaluate.temperature(), top_p = evaluate.top_p();
  out.Unless(temperature >= 0 && temperature <= 100, "evaluate.temperature", "0 (greedy) to 100", Concat(temperature));
  if (evaluate.has_top_p()) {
    out.Unless(top_p > 0 && top_p <= 1, "evaluate.top_p", "a number above 0, at most 1", Concat(top_p));
    if (top_p < 1 && temperature == 0) {
      out.Add("evaluate.top_p", "has no effect on greedy completions: set evaluate.temperature, e.g. to 1");
    }
  }
  out.Unless(evaluate.seed() >= 0, "evaluate.seed", "0 or more", Concat(evaluate.seed()));
  for (int i = 0; i < evaluate.stop_size(); ++i) {
    if (evaluate.stop(i).empty()) out.Add(Concat("evaluate.stop[", i, "]"), "must not be empty");
  }
  for (const int id : evaluate.stop_token_ids()) out.Unless(id >= 0, "evaluate.stop_token_ids", "ids of 0 or more", Concat(id));
}

void CheckOutput(const JobSpec& spec, Violations& out) {
  if (spec.output().empty()) return out.Add("output", "missing: give the folder for the artifacts");
  if (const auto uri = storage::ParseUri(spec.output()); uri.ok() && !uri->is_local() && uri->key.empty()) {
    return out.Add("output", "must be a folder in the bucket, not the bucket itself");
  }
  const auto normal = [](const std::string& path) {
    const std::string text = std::filesystem::path(path).lexically_normal().string();
    return text.size() > 1 && text.back() == '/' ? text.substr(0, text.size() - 1) : text;
  };
  if (normal(spec.output()) == normal(spec.model().path())) out.Add("output", "must not be the folder of the model");
}

}  // namespace

std::vector<FieldViolation> ValidateFields(const JobSpec& spec) {
  Violations out;
  out.Unless(IsJobName(spec.name()), "name", "lower-case letters, digits and inner dashes, 1 to 63 characters",
             Quoted(spec.name()));
  CheckAddresses(spec, out);
  CheckModel(spec, out);
  CheckConcept(spec, out);
  CheckPrompts(spec, out);
  out.Unless(spec.collect().max_batch() >= 0, "collect.max_batch", "0 (from memory) or more",
             Concat(spec.collect().max_batch()));
  CheckSelect(spec, out);
  for (FieldViolation& violation : ValidateEdit(spec)) out.Add(std::move(violation.field), std::move(violation.message));
  CheckEvaluate(spec, out);
  out.Append([&](std::vector<FieldViolation>& list) { ValidateJudges(spec, list); });
  for (FieldViolation& violation : ValidateCostFields(spec)) out.Add(std::move(violation.field), std::move(violation.message));
  CheckOutput(spec, out);
  out.Unless(spec.ranks() >= 0 && spec.ranks() <= kMaxRanks, "ranks", Concat("0 (any group) to ", kMaxRanks),
             Concat(spec.ranks()));
  out.Unless(spec.priority() >= -kHighestPriority && spec.priority() <= kHighestPriority, "priority", "-100 to 100",
             Concat(spec.priority()));
  out.Unless(spec.max_attempts() >= 0 && spec.max_attempts() <= kMostAttempts, "max_attempts", "0 to 1000",
             Concat(spec.max_attempts()));
  const bool divides = spec.tensor_parallel() > 0 && spec.ranks() % spec.tensor_parallel() == 0;
  out.Unless(spec.tensor_parallel() == 0 || (divides && spec.ranks() > 0), "tensor_parallel",
             Concat("0 (all ranks hold one copy of the model), or a divisor of ranks: ", spec.ranks()),
             Concat(spec.tensor_parallel()));
  out.Unless(spec.labels_size() <= kMaxLabels, "labels", Concat("at most ", kMaxLabels), Concat(spec.labels_size()));
  for (const auto& [key, value] : spec.labels()) {
    const bool fits = !key.empty() && key.size() <= kMaxLabelLength && value.size() <= kMaxLabelLength;
    if (!fits) out.Add("labels." + key.substr(0, 40), Concat("keys are 1 to ", kMaxLabelLength, " bytes, values at most that"));
  }
  return out.Take();
}

int TensorParallel(const JobSpec& spec, int ranks) { return spec.tensor_parallel() > 0 ? spec.tensor_parallel() : ranks; }

absl::Status ToStatus(const std::vector<FieldViolation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  absl::Status status =
      absl::InvalidArgumentError(absl::StrJoin(violations, "; ", [](std::string* out, const FieldViolation& violation) {
        absl::StrAppend(out, violation.field, ": ", violation.message);
      }));
  google::rpc::BadRequest fields;
  for (const FieldViolation& violation : violations) {
    fields.add_field_violations()->set_field(violation.field);
    fields.mutable_field_violations()->rbegin()->set_description(violation.message);
  }
  status.SetPayload("type.googleapis.com/google.rpc.BadRequest", absl::Cord(fields.SerializeAsString()));
  return status;
}

}  // namespace bearing::jobs
