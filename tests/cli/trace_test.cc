// `bearing trace`: flags are checked here, then handed to the worker as they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "cli/mpirun.h"
#include "tests/cli/program.h"
#include "tests/sharding/temp_folder.h"

namespace bearing {
namespace {

using ::testing::HasSubstr;
using testing::Program;

class TraceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "model");
    testing::WriteText(folder_ / "ids.json", "[[1, 2]]");
    testing::WriteText(folder_ / "direction.safetensors", "");
  }

  Program Start(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {BEARING_PROGRAM, "trace"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Program(arguments, {{"BEARING_WORKER", BEARING_FAKE_WORKER}}, folder_.path());
  }

  testing::TempFolder folder_;
};

TEST_F(TraceTest, BecomesTheWorker) {
  Program trace =
      Start({"--model", folder_ / "model", "--token-ids", folder_ / "ids.json", "--out", folder_ / "out.safetensors", "--dtype",
             "bfloat16", "--add", folder_ / "direction.safetensors", "--layer", "3", "--threads", "5", "--device", "cpu"});
  EXPECT_EQ(trace.Wait(), 0) << trace.Errors();
  EXPECT_EQ(trace.Output(), "trace\n--model\n" + folder_ / "model" + "\n--out\n" + (folder_ / "out.safetensors") +
                                "\n--token-ids\n" + (folder_ / "ids.json") + "\n--dtype\nbfloat16\n--add\n" +
                                (folder_ / "direction.safetensors") + "\n--device\ncpu\n--layer\n3\nranks=1 threads=5\n");
}

TEST_F(TraceTest, MoreRanksGoThroughMpirun) {
  if (!cli::FindMpirun().ok()) GTEST_SKIP() << "mpirun is not installed";
  Program trace = Start({"--model", folder_ / "model", "--token-ids", folder_ / "ids.json", "--out",
                         folder_ / "out.safetensors", "--ranks", "2", "--threads", "1"});
  EXPECT_EQ(trace.Wait(), 0) << trace.Errors();
  EXPECT_THAT(trace.Output(), HasSubstr("ranks=2 threads=1\n"));
}

TEST_F(TraceTest, WrongFlagsAreNamedBeforeAnythingStarts) {
  const std::string model = folder_ / "model";
  const std::string ids = folder_ / "ids.json";
  const std::string out = folder_ / "out.safetensors";
  const std::string direction = folder_ / "direction.safetensors";
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"--model", "/nowhere", "--token-ids", ids, "--out", out}, "--model: no such folder: /nowhere"},
      {{"--model", model, "--out", out}, "exactly one of --prompts and --token-ids"},
      {{"--model", model, "--token-ids", ids, "--prompts", ids, "--out", out}, "exactly one of --prompts and --token-ids"},
      {{"--model", model, "--prompts", "/nowhere.json", "--out", out}, "--prompts: no such file: /nowhere.json"},
      {{"--model", model, "--token-ids", ids, "--out", "/nowhere/out"}, "--out: no such folder: /nowhere"},
      {{"--model", model, "--token-ids", ids, "--out", out, "--ablate", "/nowhere"}, "--ablate: no such file"},
      {{"--model", model, "--token-ids", ids, "--out", out, "--add", direction}, "--add and --layer go together"},
      {{"--model", model, "--token-ids", ids, "--out", out, "--layer", "1"}, "--add and --layer go together"},
      {{"--model", model, "--token-ids", ids, "--out", out, "--dtype", "float64"}, "--dtype"},
  };
  for (const Case& wrong : cases) {
    Program trace = Start(wrong.arguments);
    EXPECT_EQ(trace.Wait(), 2) << wrong.message;
    EXPECT_THAT(trace.Errors(), HasSubstr(wrong.message));
    EXPECT_EQ(trace.Output(), "");
  }
}

}  // namespace
}  // namespace bearing
