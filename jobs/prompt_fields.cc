#include "jobs/prompt_fields.h"

#include <string_view>

#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JobSpec;
using bearing::v1::PromptSide;
using bearing::v1::PromptSource;

bool IsPositive(const PromptField& field) { return std::string_view(field.side) == "positive"; }

}  // namespace

std::string PromptField::Path() const { return Concat("prompts.", side, ".", set); }

std::array<PromptField, 6> PromptFields() {
  return {{{"positive", "train"},
           {"positive", "validation"},
           {"positive", "test"},
           {"negative", "train"},
           {"negative", "validation"},
           {"negative", "test"}}};
}

const PromptSource* FindSource(const JobSpec& spec, const PromptField& field) {
  const PromptSide& side = IsPositive(field) ? spec.prompts().positive() : spec.prompts().negative();
  const std::string_view set = field.set;
  if (set == "train") return side.has_train() ? &side.train() : nullptr;
  if (set == "validation") return side.has_validation() ? &side.validation() : nullptr;
  return side.has_test() ? &side.test() : nullptr;
}

PromptSource& MutableSource(JobSpec& spec, const PromptField& field) {
  bearing::v1::Prompts& prompts = *spec.mutable_prompts();
  PromptSide& side = IsPositive(field) ? *prompts.mutable_positive() : *prompts.mutable_negative();
  const std::string_view set = field.set;
  if (set == "train") return *side.mutable_train();
  if (set == "validation") return *side.mutable_validation();
  return *side.mutable_test();
}

bool IsUsed(const JobSpec& spec, const PromptField& field) {
  const bool given = FindSource(spec, field) != nullptr;
  return given || std::string_view(field.set) != "test" || !spec.evaluate().skip();
}

}  // namespace bearing::jobs
