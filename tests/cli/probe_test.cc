// `bearing probe`: flags are checked here, then handed to the worker as they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/program.h"
#include "tests/sharding/temp_folder.h"

namespace bearing {
namespace {

using ::testing::HasSubstr;
using testing::Program;

class ProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "model");
    testing::WriteText(folder_ / "p.json", "[\"a\"]");
    testing::WriteText(folder_ / "d.safetensors", "");
  }

  Program Start(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {BEARING_PROGRAM, "probe"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Program(arguments, {{"BEARING_WORKER", BEARING_FAKE_WORKER}}, folder_.path());
  }

  testing::TempFolder folder_;
};

TEST_F(ProbeTest, BecomesTheWorker) {
  const std::string direction = folder_ / "d.safetensors";
  Program probe =
      Start({"--model", folder_ / "model", "--prompts", folder_ / "p.json", "--direction", direction, "--direction", direction,
             "--suffix=- x", "--out", folder_ / "out", "--token-prompts", "0", "--count", "3", "--threads", "5"});
  EXPECT_EQ(probe.Wait(), 0) << probe.Errors();
  EXPECT_EQ(probe.Output(), "probe\n--model\n" + folder_ / "model" + "\n--out\n" + (folder_ / "out") + "\n--direction=" +
                                direction + "\n--direction=" + direction + "\n--prompts=" + (folder_ / "p.json") +
                                "\n--suffix=- x\n--count=3\n--token-prompts=0\nranks=1 threads=5\n");
}

TEST_F(ProbeTest, WrongFlagsAreNamedBeforeAnythingStarts) {
  const std::string model = folder_ / "model";
  const std::string prompts = folder_ / "p.json";
  const std::string direction = folder_ / "d.safetensors";
  const std::string out = folder_ / "out";
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"--model", "/nowhere", "--prompts", prompts, "--direction", direction, "--out", out},
       "--model: no such folder: /nowhere"},
      {{"--model", model, "--prompts", prompts, "--out", out}, "--direction is required"},
      {{"--model", model, "--prompts", prompts, "--direction", "/nowhere", "--out", out},
       "--direction: no such file: /nowhere"},
      {{"--model", model, "--direction", direction, "--out", out}, "exactly one of --prompts and --token-ids"},
      {{"--model", model, "--prompts", prompts, "--direction", direction, "--out", out, "--compare", prompts, "--suffix", "x"},
       "--compare and --suffix exclude each other"},
      {{"--model", model, "--token-ids", prompts, "--direction", direction, "--out", out, "--suffix", "x"},
       "--suffix needs --prompts"},
      {{"--model", model, "--prompts", prompts, "--direction", direction, "--out", "/nowhere/x.safetensors"},
       "--out: no such folder: /nowhere"},
      {{"--model", model, "--prompts", prompts, "--direction", direction, "--out", prompts},
       "expected a folder, or a file that ends in .safetensors"},
  };
  for (const Case& wrong : cases) {
    Program probe = Start(wrong.arguments);
    EXPECT_EQ(probe.Wait(), 2) << wrong.message;
    EXPECT_THAT(probe.Errors(), HasSubstr(wrong.message));
    EXPECT_EQ(probe.Output(), "");
  }
}

}  // namespace
}  // namespace bearing
