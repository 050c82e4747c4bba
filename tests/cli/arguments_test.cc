// The command line itself: help that teaches, and wrong usage that is caught before anything else happens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Program;

class ArgumentsTest : public ::testing::Test {
 protected:
  struct Result {
    int code;
    std::string out;
    std::string errors;
  };
  Result Call(std::vector<std::string> arguments, const testing::Environment& environment = {}) {
    arguments.insert(arguments.begin(), BEARING_PROGRAM);
    Program program(arguments, environment, folder_.path());
    const int code = program.Wait();
    return {code, program.Output(), program.Errors()};
  }

  testing::TempFolder folder_;
};

TEST_F(ArgumentsTest, EveryCommandHasHelpWithAnExample) {
  const Result all = Call({"--help"});
  EXPECT_EQ(all.code, 0);
  for (const char* command : {"run", "plan", "trace", "validate", "submit", "list", "describe", "watch", "cancel", "delete",
                              "logs", "artifacts", "token", "workers", "fetch", "doctor", "version", "completion"}) {
    EXPECT_THAT(all.out, HasSubstr(command));
    const Result help = Call({command, "--help"});
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, AllOf(HasSubstr("Example"), HasSubstr(std::string("bearing ") + command))) << command;
  }
}

TEST_F(ArgumentsTest, WrongUsageIsExitCode2) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"dance"},
      {"run"},
      {"run", "job.yaml", "--ranks", "0"},
      {"run", "job.yaml", "--ranks", "two"},
      {"run", "job.yaml", "--nonsense"},
      {"list", "-o", "xml"},
      {"list", "--state", "sleeping"},
      {"submit"},
      {"fetch", "name"},
      {"completion", "csh"},
      {"trace", "--model", "."},
  };
  for (const auto& arguments : wrong) {
    const Result result = Call(arguments);
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.errors, "");
  }
}

TEST_F(ArgumentsTest, AMissingJobFileIsExitCode2) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"run", "/nowhere/job.yaml"}, {"submit", "-f", "/nowhere/job.yaml"}, {"validate", "-f", "/nowhere/job.yaml"}}) {
    const Result result = Call(arguments);
    EXPECT_EQ(result.code, 2);
    EXPECT_THAT(result.errors, HasSubstr("/nowhere/job.yaml"));
  }
}

TEST_F(ArgumentsTest, ValidateChecksEverythingOnThisMachine) {
  const testing::JobFolder job;
  Result result = Call({"validate", "-f", job.job_file(), "-o", "json", "--set", "select.kl_max=0.25"});
  EXPECT_EQ(result.code, 0) << result.errors;
  const nlohmann::json spec = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_TRUE(spec.is_object()) << result.out;
  EXPECT_EQ(spec["select"]["klMax"], 0.25);
  EXPECT_EQ(spec["model"]["path"], job.path() + "/model");
  EXPECT_EQ(spec["model"]["dtype"], "float32");

  result = Call({"validate", "-f", job.job_file(), "--set", "select.kl_maximum=1"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.errors, HasSubstr("kl_maximum"));

  testing::WriteText(job.path() + "/negative-train.txt", "");
  result = Call({"validate", "-f", job.job_file()});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.errors, HasSubstr("prompts.negative.train.file"));
}

TEST_F(ArgumentsTest, VersionNeedsNoServerUnlessOneIsNamed) {
  Result result = Call({"version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("bearing "));
  result = Call({"version", "--server", "127.0.0.1:1"});
  EXPECT_EQ(result.code, 5);
  result = Call({"version"}, {{"BEARING_SERVER", "127.0.0.1:1"}});
  EXPECT_EQ(result.code, 5);
}

TEST_F(ArgumentsTest, AnUnreachableServerIsExitCode5AndNamed) {
  const Result result = Call({"list", "--server", "127.0.0.1:1"});
  EXPECT_EQ(result.code, 5);
  EXPECT_THAT(result.errors, HasSubstr("server=127.0.0.1:1"));
}

}  // namespace
}  // namespace bearing
