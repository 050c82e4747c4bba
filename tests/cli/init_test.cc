// `bearing init`: what it writes can be run at once, and nothing is overwritten.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "jobs/job_spec.h"
#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Program;

class InitTest : public ::testing::Test {
 protected:
  std::string Call(std::vector<std::string> arguments, int code = 0) {
    arguments.insert(arguments.begin(), BEARING_PROGRAM);
    Program program(arguments, {{"BEARING_CACHE", job_.path() + "/no-cache"}}, job_.path());
    EXPECT_EQ(program.Wait(), code) << ::testing::PrintToString(arguments) << program.Errors();
    errors_ = program.Errors();
    return program.Output();
  }

  // A folder with six files of prompts under the names that init looks for.
  std::string OwnPrompts() {
    const std::string folder = job_.path() + "/own";
    std::filesystem::create_directory(folder);
    for (const char* side : {"positive", "negative"}) {
      for (const char* set : {"train", "validation", "test"}) {
        std::filesystem::copy(job_.path() + "/" + side + "-" + set + ".txt", folder + "/" + side + "_" + set + ".txt");
      }
    }
    return folder;
  }

  testing::JobFolder job_;  // For its model.
  const std::string model_ = job_.path() + "/model";
  const std::string file_ = job_.path() + "/new.yaml";
  std::string errors_;
};

TEST_F(InitTest, TextsAreUtf8) {
  Call({"init", file_, "--model", model_, "--prompts", OwnPrompts(), "--concept", "formalit\xe9", "--marker", "x"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--concept: not valid UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(InitTest, WhatItWritesPassesADryRunAsItIs) {
  EXPECT_EQ(Call({"init", file_, "--model", model_, "--out", job_.out()}), file_ + "\n");
  EXPECT_THAT(errors_, HasSubstr("next: bearing run " + file_));
  EXPECT_EQ(Call({"run", file_, "--dry-run"}), "");
  EXPECT_THAT(errors_, HasSubstr("nothing was run"));
  EXPECT_FALSE(std::filesystem::exists(job_.out()));
  const nlohmann::json spec = nlohmann::json::parse(Call({"validate", "-f", file_, "-o", "json"}), nullptr, false);
  EXPECT_EQ(spec["model"]["path"], model_);
  EXPECT_EQ(spec["concept"]["name"], "french");
  EXPECT_EQ(spec["prompts"]["positive"]["train"]["count"], 48);
}

TEST_F(InitTest, EveryOptionShowsInTheJob) {
  Call({"init",     file_,     "--model",  model_,    "--prompts", OwnPrompts(), "--concept", "Formality: \"Sir\"",
        "--marker", "Dear ",   "--marker", "a \"b\"", "--form",    "lora",       "--form",    "direction",
        "--costs",  "--ranks", "1",        "--out",   job_.out()});
  const nlohmann::json spec = nlohmann::json::parse(Call({"run", file_, "--dry-run", "-o", "json"}), nullptr, false);
  EXPECT_EQ(spec["name"], "formality-sir");
  EXPECT_EQ(spec["concept"]["name"], "Formality: \"Sir\"");
  EXPECT_EQ(spec["concept"]["markers"], nlohmann::json({"Dear ", "a \"b\""}));
  EXPECT_EQ(spec["edit"]["form"], nlohmann::json({"lora", "direction"}));
  EXPECT_EQ(spec["costs"]["completions"]["side"], "negative");
  EXPECT_EQ(spec["ranks"], 1);
  EXPECT_EQ(spec["prompts"]["negative"]["test"]["file"], job_.path() + "/own/negative_test.txt");
  Call({"init", job_.path() + "/refusal.yaml", "--model", model_, "--prompts", job_.path() + "/own", "--concept", "refusal",
        "--no-edit"});
  EXPECT_THAT(Call({"validate", "-f", job_.path() + "/refusal.yaml", "-o", "yaml", "--set", "output=" + job_.out()}),
              HasSubstr("skip: true"));
}

// What is commented out is a setting too: each line taken in by itself still parses and passes the checks of fields.
TEST_F(InitTest, SettingsInCommentsAreRight) {
  Call({"init", file_, "--model", model_});
  const std::string text = testing::ReadText(file_);
  const std::regex setting(R"(\n  # ([a-z_]+: [^\n]+))");
  int settings = 0;
  for (std::sregex_iterator match(text.begin(), text.end(), setting), end; match != end; ++match) {
    // Prose may look like one.
    if (match->str(1).find(". ") != std::string::npos || match->str(1).ends_with(".")) continue;
    const std::string changed =
        text.substr(0, match->position()) + "\n  " + match->str(1) + text.substr(match->position() + match->length());
    // Costs are commented out as a whole.
    const bool costs = std::regex_search(match->str(1), std::regex("^(completions|texts|choices|answers)"));
    const auto spec =
        jobs::ParseJobFile(costs ? std::regex_replace(changed, std::regex("\n# costs:"), "\ncosts:") : changed, "new.yaml");
    ASSERT_TRUE(spec.ok()) << match->str(1) << ": " << spec.status();
    bearing::v1::JobSpec whole = *spec;
    jobs::ApplyDefaults(whole);
    EXPECT_TRUE(jobs::ToStatus(jobs::ValidateFields(whole)).ok())
        << match->str(1) << jobs::ToStatus(jobs::ValidateFields(whole));
    ++settings;
  }
  EXPECT_GE(settings, 15);
}

TEST_F(InitTest, NothingIsOverwritten) {
  testing::WriteText(file_, "mine");
  Call({"init", file_, "--model", model_}, 6);
  EXPECT_EQ(testing::ReadText(file_), "mine");
  EXPECT_FALSE(std::filesystem::exists(job_.path() + "/prompts"));
  std::filesystem::remove(file_);
  std::filesystem::create_directory(job_.path() + "/prompts");
  testing::WriteText(job_.path() + "/prompts/negative_test.json", "mine");
  Call({"init", file_, "--model", model_}, 6);
  EXPECT_EQ(testing::ReadText(job_.path() + "/prompts/negative_test.json"), "mine");
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(InitTest, WrongUseSaysWhatToDo) {
  Call({"init", job_.path() + "/no/such.yaml"}, 2);
  EXPECT_THAT(errors_, HasSubstr("no such folder"));
  Call({"init", file_, "--concept", "formality"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--prompts"));
  Call({"init", file_, "--prompts", job_.path() + "/nowhere", "--concept", "a", "--marker", "b"}, 2);
  EXPECT_THAT(errors_, AllOf(HasSubstr("positive_train"), HasSubstr("nowhere")));
  Call({"init", file_, "--prompts", job_.path(), "--concept", "a"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--marker"));
  EXPECT_FALSE(std::filesystem::exists(file_));
  // A model that is not there yet is said, and does not keep the file from being written.
  Call({"init", file_});
  EXPECT_THAT(errors_, HasSubstr("model: nothing there yet"));
}

}  // namespace
}  // namespace bearing
