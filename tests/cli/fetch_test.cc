#include "cli/fetch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "jobs/artifacts.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ReadText;
using testing::WriteText;

class FetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(source_ + "/checkpoint");
    WriteText(source_ + "/report.html", "report");
    WriteText(source_ + "/checkpoint/config.json", "{}");
    Add("report.html", "report");
    Add("checkpoint/config.json", "{}");
    WriteText(folder_ / "secret", "secret");
  }

  // Adds an entry to the manifest: `content` is what the file should hold.
  void Add(const std::string& name, const std::string& content) {
    manifest_["files"].push_back({{"name", name}, {"size", content.size()}, {"sha256", jobs::Sha256OfBytes(content)}});
    WriteText(source_ + "/manifest.json", manifest_.dump());
  }

  absl::StatusOr<std::vector<std::string>> Fetch(const std::string& include = "") {
    return FetchArtifacts(source_, destination_, include);
  }

  int CountFiles() const {
    int count = 0;
    std::error_code error;
    for (const auto& entry : fs::recursive_directory_iterator(destination_, error)) count += entry.is_regular_file() ? 1 : 0;
    return count;
  }

  testing::TempFolder folder_;
  std::string source_ = folder_ / "source";
  std::string destination_ = folder_ / "destination";
  nlohmann::json manifest_;
};

TEST_F(FetchTest, CopiesAllAndTheManifestLast) {
  const auto files = Fetch();
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre("report.html", "checkpoint/config.json", "manifest.json"));
  EXPECT_EQ(ReadText(destination_ + "/checkpoint/config.json"), "{}");
  EXPECT_TRUE(jobs::VerifyManifest(destination_).ok());
  EXPECT_EQ(CountFiles(), 3);
}

TEST_F(FetchTest, APartHasNoManifest) {
  const auto files = Fetch("checkpoint/*");
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre("checkpoint/config.json"));
  EXPECT_EQ(CountFiles(), 1);
  EXPECT_TRUE(absl::IsNotFound(Fetch("*.txt").status()));
}

TEST_F(FetchTest, ChangedContentIsDataLossAndNotLeftBehind) {
  WriteText(source_ + "/report.html", "repost");
  const auto files = Fetch();
  EXPECT_TRUE(absl::IsDataLoss(files.status())) << files.status();
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("file=report.html"));
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(FetchTest, ATruncatedOrMissingFileIsDataLoss) {
  WriteText(source_ + "/report.html", "rep");
  EXPECT_TRUE(absl::IsDataLoss(Fetch().status()));
  fs::remove(source_ + "/report.html");
  EXPECT_TRUE(absl::IsDataLoss(Fetch().status()));
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(FetchTest, PathsThatLeadOutAreRefusedBeforeAnyCopy) {
  const nlohmann::json good = manifest_;
  for (const std::string& name :
       {std::string("../secret"), std::string("checkpoint/../../secret"), folder_ / "secret", std::string(""), std::string("."),
        std::string("./report.html"), std::string("checkpoint/")}) {
    manifest_ = good;
    Add(name, "secret");
    EXPECT_TRUE(absl::IsInvalidArgument(Fetch().status())) << name;
    EXPECT_EQ(CountFiles(), 0) << name;
  }
}

TEST_F(FetchTest, LinksThatLeadOutAreRefused) {
  fs::create_symlink(folder_ / "secret", source_ + "/link");
  Add("link", "secret");
  EXPECT_TRUE(absl::IsInvalidArgument(Fetch().status()));
}

TEST_F(FetchTest, ALinkInTheDestinationIsNotFollowedOut) {
  fs::create_directories(destination_);
  fs::create_directories(folder_ / "elsewhere");
  fs::create_directory_symlink(folder_ / "elsewhere", destination_ + "/checkpoint");
  EXPECT_TRUE(absl::IsInvalidArgument(Fetch().status()));
  EXPECT_TRUE(fs::is_empty(folder_ / "elsewhere"));
}

TEST_F(FetchTest, NothingIsOverwritten) {
  fs::create_directories(destination_);
  WriteText(destination_ + "/report.html", "mine");
  EXPECT_TRUE(absl::IsAlreadyExists(Fetch().status()));
  EXPECT_EQ(ReadText(destination_ + "/report.html"), "mine");
  EXPECT_EQ(CountFiles(), 1);
}

TEST_F(FetchTest, WithoutAManifestThereIsNothing) {
  WriteText(source_ + "/manifest.json", "[]");
  EXPECT_TRUE(absl::IsDataLoss(Fetch().status()));
  fs::remove(source_ + "/manifest.json");
  EXPECT_TRUE(absl::IsNotFound(Fetch().status()));
}

}  // namespace
}  // namespace bearing::cli
