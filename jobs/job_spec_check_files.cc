#include <map>
#include <unordered_map>

#include "jobs/artifacts.h"
#include "jobs/cost_fields.h"
#include "jobs/job_spec.h"
#include "jobs/prompt_fields.h"
#include "jobs/prompt_set.h"
#include "jobs/utf8.h"
#include "jobs/work_folder.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;

struct LoadedSet {
  PromptField field;
  std::vector<Prompt> prompts;
};

// Prompts that two sets share would leak training data into validation or test, or put one prompt on both sides.
void CheckShared(const std::vector<LoadedSet>& sets, std::vector<FieldViolation>& out) {
  struct Overlap {
    int count = 0;
    std::string first;
  };
  for (size_t later = 1; later < sets.size(); ++later) {
    std::map<size_t, Overlap> overlaps;
    std::unordered_map<std::string_view, size_t> owner;
    for (size_t i = 0; i < later; ++i) {
      for (const Prompt& prompt : sets[i].prompts) owner.emplace(prompt.instruction, i);
    }
    for (const Prompt& prompt : sets[later].prompts) {
      const auto found = owner.find(prompt.instruction);
      if (found == owner.end()) continue;
      Overlap& overlap = overlaps[found->second];
      if (overlap.count++ == 0) overlap.first = prompt.instruction;
    }
    for (const auto& [i, overlap] : overlaps) {
      out.push_back({sets[later].field.Path() + ".file",
                     Concat("shares ", overlap.count, overlap.count == 1 ? " prompt" : " prompts", " with ",
                            sets[i].field.Path(), "; the first is \"", Shorten(overlap.first, 60), "\"")});
    }
  }
}

}  // namespace

std::vector<FieldViolation> ValidateFiles(const JobSpec& spec) {
  std::vector<FieldViolation> out;
  std::vector<LoadedSet> sets;
  for (const PromptField& field : PromptFields()) {
    const bearing::v1::PromptSource* source = FindSource(spec, field);
    if (source == nullptr || source->file().empty()) continue;
    absl::StatusOr<std::vector<Prompt>> prompts = LoadPrompts(source->file(), source->column(), source->count());
    if (prompts.ok()) {
      sets.push_back({field, *std::move(prompts)});
    } else {
      out.push_back({field.Path() + ".file", std::string(prompts.status().message())});
    }
  }
  CheckShared(sets, out);
  for (FieldViolation& violation : ValidateCostFiles(spec)) out.push_back(std::move(violation));
  const std::string& chat_template = spec.model().chat_template();
  if (!chat_template.empty()) {
    if (const auto text = ReadInput(chat_template); !text.ok()) {
      out.push_back({"model.chat_template", std::string(text.status().message())});
    }
  }
  for (int i = 0; i < spec.judges_size(); ++i) {
    const bearing::v1::JudgeModel& model = spec.judges(i).model();
    for (const auto& [name, file] :
         {std::pair{"prompt_file", &model.prompt_file()}, {"chat_template", &model.chat_template()}}) {
      if (file->empty()) continue;
      const auto text = ReadInput(*file);
      if (!text.ok()) out.push_back({Concat("judges[", i, "].model.", name), std::string(text.status().message())});
    }
  }
  // The digest needs the prompt files, so it can only be had when they are readable.
  if (!spec.output().empty() && out.empty()) {
    const absl::StatusOr<std::string> digest = SpecDigest(spec);
    const absl::Status usable = digest.ok() ? CheckOutputPlace(spec, *digest) : digest.status();
    if (!usable.ok()) out.push_back({"output", std::string(usable.message())});
  }
  return out;
}

}  // namespace bearing::jobs
