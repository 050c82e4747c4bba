// `bearing plan` on the tiny job: from a file, from a datasheet, from a worker that measures what it is told to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/mpirun.h"
#include "jobs/plan/machine.h"
#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;

class PlanTest : public ::testing::Test {
 protected:
  void SetUp() override {
    nlohmann::json machine = jobs::MachineJson(*jobs::MachineProfile("h100", "float32", 0.5));
    machine["measured"] = true;
    machine["is_gpu"] = false;
    machine["process_bytes"] = 1 << 20;
    machine["memory_bytes_per_rank"] = int64_t{64} << 30;
    testing::WriteText(MachineFile(), machine.dump());
  }

  std::string MachineFile() const { return job_.path() + "/machine.json"; }

  Program Start(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {BEARING_PROGRAM, "plan", job_.job_file()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Program(arguments, {{"BEARING_WORKER", BEARING_FAKE_WORKER}, {"FAKE_MACHINE", fake_machine_}}, job_.path());
  }

  nlohmann::json Json(std::vector<std::string> more) {
    more.insert(more.end(), {"-o", "json"});
    Program plan = Start(more);
    EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
    return nlohmann::json::parse(plan.Output(), nullptr, /*allow_exceptions=*/false);
  }

  testing::JobFolder job_;
  std::string fake_machine_;
};

TEST_F(PlanTest, SaysWhatIsSlowestAndWhetherItFitsFirst) {
  Program plan = Start({"--machine", MachineFile(), "--ranks", "2"});
  EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
  const std::string text = plan.Output();
  EXPECT_EQ(text.find("job "), 0u);
  EXPECT_LT(text.find("slowest"), text.find("STAGE"));
  EXPECT_THAT(text, AllOf(HasSubstr(": fits\n"), HasSubstr("heads 2 + 2"), HasSubstr("measured with"), HasSubstr("\ntotal "),
                          HasSubstr("counted with the model's tokenizer"), HasSubstr("assumed\n")));
  EXPECT_FALSE(std::filesystem::exists(job_.out())) << "a plan writes no output folder";
}

TEST_F(PlanTest, JsonHoldsTheSame) {
  const nlohmann::json plan = Json({"--machine", MachineFile(), "--ranks", "2"});
  ASSERT_TRUE(plan.is_object());
  EXPECT_EQ(plan.at("format"), "bearing-plan/1");
  EXPECT_EQ(plan.at("ranks").size(), 2u);
  EXPECT_EQ(plan.at("fits"), true);
  EXPECT_EQ(plan.at("workload").at("tokens_estimated"), false);
  // 32 x 16 + 16 x (16 + 8 + 8 + 16) + 3 x 8 x 16 + 3 x 16.
  EXPECT_EQ(plan.at("model").at("parameters"), 512 + 768 + 384 + 48);
  double seconds = 0;
  for (const nlohmann::json& stage : plan.at("stages")) seconds += stage.at("seconds").get<double>();
  EXPECT_NEAR(plan.at("seconds").get<double>(), seconds, 1e-9);
}

TEST_F(PlanTest, CopiesOfTheModelShareTheWork) {
  const nlohmann::json plan = Json({"--machine", MachineFile(), "--ranks", "4", "--tensor-parallel", "2"});
  ASSERT_TRUE(plan.is_object());
  EXPECT_EQ(plan.at("replicas"), 2);
  EXPECT_EQ(plan.at("ranks").size(), 2u);
  Program text = Start({"--machine", MachineFile(), "--ranks", "4", "--tensor-parallel", "2"});
  EXPECT_EQ(text.Wait(), 0) << text.Errors();
  EXPECT_THAT(text.Output(), HasSubstr("on 4 rank(s) (2 copies of the model on 2 each)"));
  Program odd = Start({"--machine", MachineFile(), "--ranks", "3", "--tensor-parallel", "2"});
  EXPECT_EQ(odd.Wait(), 2);
  EXPECT_THAT(odd.Errors(), HasSubstr("3 ranks are no multiple of 2"));
}

TEST_F(PlanTest, ADatasheetIsLabelledAsSuch) {
  Program plan = Start({"--gpu", "h100", "--set", "model.dtype=bfloat16", "--hbm", "80GiB", "--gpus-per-node", "8"});
  EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
  EXPECT_THAT(plan.Output(), AllOf(HasSubstr("estimate from datasheet, not measured: h100"), HasSubstr("of 80.0 GiB"),
                                   HasSubstr("products reach 50 % of 989.4 TFLOP/s")));
}

TEST_F(PlanTest, SeveralRanksGiveALineEach) {
  Program plan = Start({"--machine", MachineFile(), "--ranks", "1,2,4,64"});
  EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
  EXPECT_THAT(plan.Output(), AllOf(HasSubstr("RANKS "), HasSubstr("\n1 "), HasSubstr("\n2 "), HasSubstr("\n4 "),
                                   HasSubstr("64 ranks: too many ranks for the model"), Not(HasSubstr("\n64  "))));
}

TEST_F(PlanTest, AConfigAloneIsEnough) {
  const std::string folder = job_.path() + "/bare";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(job_.path() + "/model/config.json", folder + "/config.json");
  for (const std::vector<std::string>& model :
       {std::vector<std::string>{"--model", folder}, {"--model-config", folder + "/config.json"}}) {
    std::vector<std::string> arguments = {"--machine", MachineFile()};
    arguments.insert(arguments.end(), model.begin(), model.end());
    const nlohmann::json plan = Json(arguments);
    EXPECT_EQ(plan.at("workload").at("tokens_estimated"), true);
    EXPECT_EQ(plan.at("model").at("parameters"), 512 + 768 + 384 + 48);
  }
}

TEST_F(PlanTest, WhatDoesNotFitSaysByHowMuch) {
  Program plan = Start({"--machine", MachineFile(), "--memory", "1MiB"});
  EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
  EXPECT_THAT(plan.Output(), AllOf(HasSubstr("does NOT fit, "), HasSubstr("No number of ranks like these holds it")));
}

TEST_F(PlanTest, MeasuresWithTheWorkerAndSavesIt) {
  if (!cli::FindMpirun().ok()) GTEST_SKIP() << "mpirun is not installed";
  fake_machine_ = MachineFile();
  const std::string saved = job_.path() + "/saved.json";
  Program plan = Start({"--ranks", "1", "--save-machine", saved});
  EXPECT_EQ(plan.Wait(), 0) << plan.Errors();
  EXPECT_THAT(plan.Errors(), HasSubstr("measuring this machine with 1 rank"));
  std::ifstream file(saved);
  const nlohmann::json machine = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  EXPECT_EQ(machine.value("name", ""), "h100");
}

TEST_F(PlanTest, AWorkerThatFailsIsQuoted) {
  if (!cli::FindMpirun().ok()) GTEST_SKIP() << "mpirun is not installed";
  Program plan = Start({"--ranks", "1"});
  EXPECT_EQ(plan.Wait(), 1);
  EXPECT_THAT(plan.Errors(), HasSubstr("bearing-worker calibrate"));
}

TEST_F(PlanTest, WrongFlagsAreNamed) {
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"--machine", MachineFile(), "--ranks", "5"}, "too many ranks for the model"},
      {{"--machine", MachineFile(), "--ranks", "0"}, "--ranks"},
      {{"--machine", MachineFile(), "--hbm", "much"}, "--memory: not a size"},
      {{"--machine", MachineFile(), "--set", "model.dtype=bfloat16"}, "another compute type: file=float32 job=bfloat16"},
      {{"--machine", MachineFile(), "--gpu", "h100"}, "--gpu"},
      {{"--gpu", "abacus"}, "--gpu"},
      {{"--gpu", "h100", "--model", "/nowhere"}, "/nowhere"},
      {{"--machine", job_.job_file()}, "machine file"},
  };
  for (const Case& wrong : cases) {
    Program plan = Start(wrong.arguments);
    EXPECT_EQ(plan.Wait(), 2) << wrong.message << plan.Errors();
    EXPECT_THAT(plan.Errors(), HasSubstr(wrong.message));
    EXPECT_EQ(plan.Output(), "");
  }
}

}  // namespace
}  // namespace bearing
