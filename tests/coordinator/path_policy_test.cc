// Where jobs may read and write.
#include "coordinator/path_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "rpc/status_details.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {
namespace {

using ::testing::HasSubstr;

class PathPolicyTest : public ::testing::Test {
 protected:
  PathPolicyTest() {
    std::filesystem::create_directories(dir_ / "models/a");
    std::filesystem::create_directories(dir_ / "work");
    std::filesystem::create_directories(dir_ / "secret");
    policy_ = PathPolicy::Create({dir_ / "models", "s3://bucket/models"}, {dir_ / "work", "s3://bucket/out"}).value();
  }

  absl::Status Check(const std::string& model, const std::string& output) {
    bearing::v1::JobSpec spec;
    spec.mutable_model()->set_path(model);
    spec.set_output(output);
    return policy_.Check(spec);
  }

  TempDir dir_;
  PathPolicy policy_;
};

TEST_F(PathPolicyTest, AllowsWhatIsBelowAPrefix) {
  EXPECT_TRUE(Check(dir_ / "models/a", dir_ / "work/new/deep").ok());
  EXPECT_TRUE(Check(dir_ / "models/../models/a", dir_ / "work/x").ok());
  EXPECT_TRUE(Check(dir_ / "work/model", dir_ / "work").ok()) << "what may be written may be read";
  EXPECT_TRUE(Check("s3://bucket/models/x", "s3://bucket/out/y").ok());
  EXPECT_TRUE(Check("file://" + (dir_ / "models/a"), dir_ / "work/x").ok());
}

TEST_F(PathPolicyTest, RefusesEverythingElse) {
  for (const std::string& model : {dir_ / "secret", dir_ / "models/../secret", dir_ / "modelsx", std::string("/etc/passwd"),
                                   std::string("/"), std::string("s3://bucket/modelsx"), std::string("s3://other/models"),
                                   std::string("gs://bucket/models"), "file://" + (dir_ / "secret")}) {
    const absl::Status status = Check(model, dir_ / "work/x");
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << model;
    EXPECT_EQ(rpc::ReasonOf(status), "PATH_NOT_ALLOWED");
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.path: "));
  }
  // Reading is not writing.
  EXPECT_EQ(Check(dir_ / "models/a", dir_ / "models/out").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Check(dir_ / "models/a", "s3://bucket/models/out").code(), absl::StatusCode::kPermissionDenied);
  // What no path is at all.
  EXPECT_FALSE(Check("s3://bucket/models/../x", dir_ / "work/x").ok());
  EXPECT_FALSE(Check(dir_ / "models/a", "relative").ok());
}

TEST_F(PathPolicyTest, LinksDoNotLeadOut) {
  std::filesystem::create_symlink(dir_ / "secret", dir_ / "models/link");
  EXPECT_EQ(Check(dir_ / "models/link", dir_ / "work/x").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Check(dir_ / "models/link/new", dir_ / "work/x").code(), absl::StatusCode::kPermissionDenied);
  // To what is not there yet, through another link, and in a circle.
  std::filesystem::create_symlink(dir_ / "elsewhere", dir_ / "work/new");
  EXPECT_EQ(Check(dir_ / "models/a", dir_ / "work/new").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Check(dir_ / "models/a", dir_ / "work/new/deep").code(), absl::StatusCode::kPermissionDenied);
  std::filesystem::create_symlink("new/../../secret", dir_ / "work/again");
  EXPECT_FALSE(Check(dir_ / "models/a", dir_ / "work/again").ok());
  std::filesystem::create_symlink("circle", dir_ / "work/circle");
  EXPECT_EQ(Check(dir_ / "models/a", dir_ / "work/circle").code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::create_symlink(dir_ / "secret/key", dir_ / "models/a/config.json");
  EXPECT_EQ(Check(dir_ / "models/a", dir_ / "work/x").code(), absl::StatusCode::kPermissionDenied);
  // One that stays inside is what the hub's cache is made of.
  std::filesystem::create_directories(dir_ / "models/b");
  std::filesystem::create_symlink("../blob", dir_ / "models/b/config.json");
  EXPECT_TRUE(Check(dir_ / "models/b", dir_ / "work/x").ok());
}

TEST_F(PathPolicyTest, EveryTextThatIsAPathCounts) {
  bearing::v1::JobSpec spec;
  spec.set_output(dir_ / "work/x");
  spec.mutable_prompts()->mutable_negative()->mutable_test()->set_file("/etc/passwd");
  EXPECT_THAT(std::string(policy_.Check(spec).message()), HasSubstr("prompts.negative.test.file: "));
  spec.mutable_prompts()->clear_negative();
  spec.mutable_concept_spec()->add_markers("/help");
  spec.mutable_prompts()->set_system("/help or s3://x");
  (*spec.mutable_labels())["x"] = "/etc";
  spec.mutable_evaluate()->add_stop("/end");
  bearing::v1::JudgeModel& judge = *spec.add_judges()->mutable_model();
  judge.set_prompt("/judge {response}");
  judge.add_says_yes("/yes");
  EXPECT_TRUE(policy_.Check(spec).ok()) << policy_.Check(spec);
  judge.set_prompt_file("/etc/passwd");
  EXPECT_THAT(std::string(policy_.Check(spec).message()), HasSubstr("judges[0].model.prompt_file: "));
  judge.clear_prompt_file();
  judge.set_path(dir_ / "secret");
  EXPECT_THAT(std::string(policy_.Check(spec).message()), HasSubstr("judges[0].model.path: "));
}

}  // namespace
}  // namespace bearing::coordinator
