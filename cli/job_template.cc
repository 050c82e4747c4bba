#include "cli/job_template.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/embedded_files.h"

namespace bearing::cli {
namespace {

// Text in double quotes, as YAML and JSON both read it.
std::string Quote(const std::string& text) { return nlohmann::json(text).dump(); }

std::string List(const std::vector<std::string>& texts) {
  return absl::StrCat("[", absl::StrJoin(texts, ", ", [](std::string* out, const std::string& text) { *out += Quote(text); }),
                      "]");
}

std::string Side(const JobTemplate& job, size_t first, const char* side) {
  static constexpr const char* kSets[] = {"train", "validation", "test"};
  std::string text = absl::StrCat("  ", side, ":\n");
  for (size_t i = 0; i < 3; ++i) {
    // The starter holds more than a small model needs.
    const char* count = job.starter ? (i == 0 ? ", count: 48" : ", count: 16") : "";
    absl::StrAppend(&text, "    ", kSets[i], ": {file: ", Quote(job.prompts[first + i]), count, "}\n");
  }
  return text;
}

std::string ConceptPart(const JobTemplate& job) {
  std::string text =
      absl::StrCat("concept:\n  # What the direction is called in titles and reports.\n  name: ", Quote(job.concept_name),
                   "\n  # An answer that contains one of these (upper or lower case) counts as showing the concept.\n");
  if (job.markers.empty()) {
    text +=
        "  # With the name \"refusal\" these are the phrases of the paper, when left out.\n  # markers: [\"I cannot\", \"I'm "
        "sorry\"]\n";
  } else {
    absl::StrAppend(&text, "  markers: ", List(job.markers), "\n");
  }
  text +=
      "  # The tokens an answer that shows it starts with. Left out, they are derived from what the model says on the training "
      "prompts.\n"
      "  # Each must be exactly one token of the model.\n"
      "  # tokens: [\"I\", \"As\"]\n";
  return text;
}

std::string SelectPart(const JobTemplate& job) {
  // Language shows in nearly all that a model computes: the starter's thresholds are wide, so that small models pass.
  return absl::StrCat(
      "collect:\n"
      "  # Leaves out training and validation prompts on which the model's first token does not show their side.\n",
      job.starter ? "  # First tokens tell languages apart less surely than refusals, so all are kept here.\n" : "",
      "  filter: ", job.starter ? "false" : "true",
      "\n  # Prompts in one forward pass at the most; 0 takes what fits in memory.\n  # max_batch: 0\n\n"
      "select:\n"
      "  # A candidate's removal may change the answers to negative prompts by this divergence at the most (nats, first "
      "token).\n"
      "  kl_max: ",
      job.starter ? "0.5" : "0.1",
      "\n  # Adding the direction must bring the concept to negative prompts at least to this log-odds: 0 is an even chance.\n"
      "  induce_min: ",
      job.starter ? "-3" : "0",
      "\n  # When no candidate passes: fail says how near they came; relax_kl and relax_induce widen a threshold step by step, "
      "and the\n"
      "  # report shows how far.\n"
      "  when_none_passes: ",
      job.starter ? "relax_kl" : "fail",
      "\n  # The last share of the layers is not searched.\n  # prune_layers: 0.2\n"
      "  # Only these layers, or positions counted back from the prompt's last token (-1).\n"
      "  # layers: [10, 11, 12]\n  # positions: [-1, -2]\n"
      "  # true scores every candidate in full, for heat maps without gaps; the choice is the same.\n  # complete: false\n\n");
}

std::string EvaluatePart(const JobTemplate& job) {
  std::string text =
      "evaluate:\n"
      "  # Length of the answers to the test prompts: without the direction, with it removed, and with it added.\n"
      "  max_new_tokens: 48\n"
      "  # How strongly the mean difference is added.\n  # addition_factor: 1\n"
      "  # 0 takes the likeliest token each time; above, tokens are drawn, with a seed.\n  # temperature: 0\n  # seed: 0\n\n"
      "# Who reads the answers beside the markers: phrases, the first token's metric, or a model (docs/measure.md).\n"
      "# judges: [{name: own-phrases, markers: [\"I must decline\"]}]\n\n";
  text += job.costs ? "costs:\n" : "# costs:\n";
  text += "  # What the removal costs beside the concept: cross-entropy and KL on the model's own answers (docs/measure.md).\n";
  text += job.costs ? "  completions: {side: negative, kl_tokens: 16}\n" : "  # completions: {side: negative, kl_tokens: 16}\n";
  text +=
      "  # Cross-entropy on any texts, multiple choice, and right answers of a benchmark of yours.\n"
      "  # texts: [{file: texts.jsonl, column: text}]\n"
      "  # choices: [{file: choices.jsonl}]\n"
      "  # answers: [{file: answers.jsonl, count: 100}]\n\n";
  return text;
}

std::string EditPart(const JobTemplate& job) {
  return absl::StrCat(
      "edit:\n  # What is written: checkpoint (a whole model), lora (an adapter that merges to the same weights), "
      "control-vector (GGUF),\n"
      "  # direction (its vector); any of them together (docs/edit.md).\n",
      job.forms.empty() ? "  form: [checkpoint]\n" : absl::StrCat("  form: ", List(job.forms), "\n"),
      "  # Share of the direction that is removed: 1 = all of it.\n  # strength: 1\n"
      "  # Only these layers, both included.\n  # first_layer: 8\n  # last_layer: 20\n",
      "  # true stops before anything is written: the measurements alone.\n",
      job.edit ? "  # skip: false\n\n" : "  skip: true\n\n");
}

}  // namespace

std::array<StarterFile, 6> StarterFiles() {
  return {{{"positive_train.json", FrenchTrain},
           {"positive_validation.json", FrenchValidation},
           {"positive_test.json", FrenchTest},
           {"negative_train.json", EnglishTrain},
           {"negative_validation.json", EnglishValidation},
           {"negative_test.json", EnglishTest}}};
}

std::string JobFileText(const JobTemplate& job) {
  std::string text = absl::StrCat(
      "# A job of Bearing: finds a direction, measures what it does, and writes the edit.\n"
      "#   bearing run ",
      job.file,
      "\n"
      "# Settings that are commented out are at their default, or are examples. Any of them can be set for one run:\n"
      "#   bearing run ",
      job.file,
      " --set select.kl_max=0.2\n"
      "# `bearing schema job` has every field; `bearing validate -f ",
      job.file,
      "` checks the file, its prompts and its model.\n"
      "apiVersion: bearing/v1\nkind: Job\n\n"
      "# Starts the name the job gets: lower-case letters, digits and dashes.\nname: ",
      Quote(job.name), "\n\n");
  absl::StrAppend(
      &text, "model:\n  # A Hugging Face folder with weights, tokenizer and chat template.\n  path: ", Quote(job.model),
      "\n  # What the forward pass computes in: float32, or bfloat16 for half the memory.\n  dtype: float32\n"
      "  # resident, streamed (for models larger than memory), or auto: resident where it fits.\n  # residency: auto\n"
      "  # Replaces the model's chat template, if it has none or a wrong one.\n  # chat_template: template.jinja\n\n");
  absl::StrAppend(&text, ConceptPart(job), "\n");
  absl::StrAppend(&text,
                  "# Paths start at this file's folder; .json, .jsonl, .csv, or .txt with one prompt a line. The sets of a "
                  "side share no prompt.\n",
                  job.starter ? "# To begin with: requests in French, and in English. Put your own in their place.\n" : "",
                  "prompts:\n  # Prompts that show the concept.\n", Side(job, 0, "positive"), "  # Prompts that do not.\n",
                  Side(job, 3, "negative"),
                  "  # A system prompt of every conversation.\n  # system: You are a helpful assistant.\n\n");
  absl::StrAppend(&text, SelectPart(job), EvaluatePart(job), EditPart(job));
  absl::StrAppend(&text, "# Where results are written, from the folder the command is run in.\noutput: ", Quote(job.output),
                  "\n\n# Processes that share the model.\nranks: ", job.ranks, "\n");
  return text;
}

}  // namespace bearing::cli
