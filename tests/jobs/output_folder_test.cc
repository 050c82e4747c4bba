#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "jobs/artifacts.h"
#include "jobs/atomic_file.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class OutputFolderTest : public testing::Test {
 protected:
  absl::StatusOr<OutputFolder> Open(const std::string& spec = "spec", const std::string& model = "model") {
    return OutputFolder::Open(out_, R"({"name": "x"})", spec, model);
  }
  OutputFolder MustOpen(const std::string& spec = "spec", const std::string& model = "model") {
    absl::StatusOr<OutputFolder> folder = Open(spec, model);
    EXPECT_TRUE(folder.ok()) << folder.status();
    return *std::move(folder);
  }
  // Leaves a file of another size or content, with the time of the old one.
  void Tamper(const std::string& relative, const std::string& content) {
    const auto time = fs::last_write_time(root_.PathOf("out/" + relative));
    root_.Write("out/" + relative, content);
    fs::last_write_time(root_.PathOf("out/" + relative), time);
  }

  TemporaryFolder root_;
  std::string out_ = root_.PathOf("out");
};

TEST_F(OutputFolderTest, ClaimsAnAbsentFolder) {
  const OutputFolder folder = MustOpen();
  EXPECT_EQ(folder.path(), out_);
  EXPECT_EQ(folder.PathOf("a/b"), out_ + "/a/b");
  const auto claim = nlohmann::json::parse(*ReadFile(out_ + "/.bearing/job.json"));
  EXPECT_EQ(claim["spec_digest"], "spec");
  EXPECT_EQ(claim["spec"]["name"], "x");
}

TEST_F(OutputFolderTest, ServiceLogsAreNoForeignFiles) {
  root_.Write("out/.bearing/service/worker.log", "log");
  EXPECT_TRUE(CheckOutputFolder(out_, "spec").ok());
  MustOpen();
  EXPECT_EQ(*ReadFile(out_ + "/.bearing/service/worker.log"), "log");
}

TEST_F(OutputFolderTest, RefusesForeignFiles) {
  root_.Write("out/thesis.txt", "mine");
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("file=thesis.txt"));
  EXPECT_FALSE(fs::exists(out_ + "/.bearing")) << "a refused folder must stay as it was";
}

TEST_F(OutputFolderTest, RefusesAFileAndAnUnreadableClaim) {
  root_.Write("out", "a file");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kAlreadyExists);
  fs::remove(out_);
  root_.Write("out/.bearing/job.json", "{\"spec_dig");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(OutputFolderTest, RefusesAnotherJobAndTakesTheSameAgain) {
  MustOpen();
  EXPECT_EQ(Open("other").status().code(), absl::StatusCode::kAlreadyExists);
  MustOpen();
}

TEST_F(OutputFolderTest, OfManyClaimsOneDigestWins) {
  std::atomic<int> wins = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, i, &wins] { wins += Open("spec" + std::to_string(i)).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wins, 1);
}

TEST_F(OutputFolderTest, ResumesFinishedStages) {
  OutputFolder folder = MustOpen();
  EXPECT_FALSE(folder.IsStageDone("collect"));
  root_.Write("out/means.safetensors", "means");
  root_.Write("out/checkpoint/model.safetensors", "weights");
  ASSERT_TRUE(folder.MarkStageDone("collect", {"means.safetensors"}, 1.5).ok());
  ASSERT_TRUE(folder.MarkStageDone("edit", {"checkpoint/model.safetensors"}, 2).ok());
  const OutputFolder again = MustOpen();
  EXPECT_TRUE(again.IsStageDone("collect"));
  EXPECT_TRUE(again.IsStageDone("edit"));
  EXPECT_FALSE(again.IsStageDone("select"));
  EXPECT_THAT(again.StageSeconds(), ElementsAre(Pair("collect", 1.5), Pair("edit", 2)));
}

TEST_F(OutputFolderTest, AStageOfAnotherModelIsNotDone) {
  OutputFolder folder = MustOpen();
  root_.Write("out/means.safetensors", "means");
  ASSERT_TRUE(folder.MarkStageDone("collect", {"means.safetensors"}, 1).ok());
  const OutputFolder other = MustOpen("spec", "another model");
  EXPECT_FALSE(other.IsStageDone("collect"));
  EXPECT_TRUE(other.StageSeconds().empty());
}

TEST_F(OutputFolderTest, TamperedOrMissingFilesUndoAStage) {
  OutputFolder folder = MustOpen();
  root_.Write("out/a", "0123");
  root_.Write("out/b", "b");
  ASSERT_TRUE(folder.MarkStageDone("collect", {"a", "b"}, 1).ok());
  Tamper("a", "0124");
  EXPECT_FALSE(folder.IsStageDone("collect")) << "same size, other content";
  Tamper("a", "0123");
  EXPECT_TRUE(folder.IsStageDone("collect"));
  Tamper("a", "01234");
  EXPECT_FALSE(folder.IsStageDone("collect")) << "another size";
  Tamper("a", "0123");
  fs::remove(out_ + "/b");
  EXPECT_FALSE(folder.IsStageDone("collect")) << "a file is gone";
}

TEST_F(OutputFolderTest, TakesOverAStageOfAnotherRun) {
  OutputFolder first = MustOpen();
  EXPECT_FALSE(first.RecordOf("evaluate").ok());
  root_.Write("out/a", "0123");
  root_.Write("out/.bearing/evaluate/b", "b");
  ASSERT_TRUE(first.MarkStageDone("evaluate", {"a", ".bearing/evaluate/b"}, 1).ok());
  const StageRecord record = *first.RecordOf("evaluate");

  const std::string other = root_.PathOf("other");
  OutputFolder second = *OutputFolder::Open(other, "{}", "another spec", "model");
  root_.Write("other/.bearing/evaluate/begun", "by an attempt before");
  EXPECT_TRUE(*second.AdoptStage("evaluate", record));
  EXPECT_TRUE(second.IsStageDone("evaluate"));
  EXPECT_EQ(*ReadFile(other + "/a"), "0123");
  EXPECT_EQ(*ReadFile(other + "/.bearing/evaluate/b"), "b");
  EXPECT_FALSE(fs::exists(other + "/.bearing/evaluate/begun"));
}

TEST_F(OutputFolderTest, TakesOverAStageWhoseFolderIsGone) {
  OutputFolder first = MustOpen();
  root_.Write("out/a", "0123");
  ASSERT_TRUE(first.MarkStageDone("collect", {"a"}, 1).ok());
  StageRecord record = *first.RecordOf("collect");
  EXPECT_EQ(record.bytes(), 4);
  record.contents["a"] = "0123";
  fs::remove_all(out_);
  OutputFolder second = *OutputFolder::Open(root_.PathOf("other"), "{}", "another spec", "model");
  EXPECT_TRUE(*second.AdoptStage("collect", record));
  EXPECT_TRUE(second.IsStageDone("collect"));
  EXPECT_EQ(*ReadFile(root_.PathOf("other/a")), "0123");
}

TEST_F(OutputFolderTest, TakesOverNothingThatHasChanged) {
  OutputFolder first = MustOpen();
  root_.Write("out/a", "0123");
  root_.Write("out/b", "b");
  ASSERT_TRUE(first.MarkStageDone("collect", {"a", "b"}, 1).ok());
  const StageRecord record = *first.RecordOf("collect");
  const std::string other = root_.PathOf("other");
  OutputFolder second = *OutputFolder::Open(other, "{}", "another spec", "model");
  const auto takes_nothing = [&](const StageRecord& from) {
    return !*second.AdoptStage("collect", from) && !second.IsStageDone("collect") && !fs::exists(other + "/a") &&
           !fs::exists(other + "/b");
  };
  Tamper("b", "c");
  EXPECT_TRUE(takes_nothing(record)) << "same size, other content";
  Tamper("b", "bb");
  EXPECT_TRUE(takes_nothing(record)) << "longer";
  Tamper("b", "");
  EXPECT_TRUE(takes_nothing(record)) << "shorter";
  fs::remove(out_ + "/b");
  EXPECT_TRUE(takes_nothing(record)) << "gone";
  StageRecord outside = record;
  outside.files[0].name = "../a";
  EXPECT_TRUE(takes_nothing(outside));
}

TEST_F(OutputFolderTest, ACrashBetweenFileAndMarkLeavesTheStageUndone) {
  MustOpen();
  root_.Write("out/means.safetensors", "written, not marked");
  // What WriteFileAtomically leaves when it dies before the rename, for the file and for the mark.
  root_.Write("out/.candidates.json.tmp-0011223344556677", "half");
  root_.Write("out/.bearing/stages/.collect.json.tmp-0011223344556677", "{\"spec_d");
  OutputFolder folder = MustOpen();
  EXPECT_FALSE(folder.IsStageDone("collect"));
  EXPECT_TRUE(folder.StageSeconds().empty());
  EXPECT_FALSE(fs::exists(out_ + "/.candidates.json.tmp-0011223344556677")) << "leftovers are removed";
  EXPECT_EQ(*ReadFile(out_ + "/means.safetensors"), "written, not marked") << "only leftovers are";
  ASSERT_TRUE(folder.MarkStageDone("collect", {"means.safetensors"}, 1).ok());
  EXPECT_TRUE(folder.IsStageDone("collect"));
}

TEST_F(OutputFolderTest, ADamagedMarkIsNoMark) {
  OutputFolder folder = MustOpen();
  root_.Write("out/a", "a");
  ASSERT_TRUE(folder.MarkStageDone("collect", {"a"}, 1).ok());
  const std::string mark = *ReadFile(out_ + "/.bearing/stages/collect.json");
  for (size_t size = 0; size < mark.size(); size += 7) {
    root_.Write("out/.bearing/stages/collect.json", mark.substr(0, size));
    EXPECT_FALSE(folder.IsStageDone("collect")) << size;
  }
  root_.Write(
      "out/.bearing/stages/collect.json",
      R"({"spec_digest": "spec", "model_digest": "model", "seconds": 1, "files": [{"name": "../../etc/passwd", "size": 1}]})");
  EXPECT_FALSE(folder.IsStageDone("collect"));
}

TEST_F(OutputFolderTest, AMarkNeedsItsFiles) {
  OutputFolder folder = MustOpen();
  EXPECT_EQ(folder.MarkStageDone("collect", {"none"}, 1).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(folder.MarkStageDone("collect", {"../x"}, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(folder.MarkStageDone("collect", {"/etc/passwd"}, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(folder.IsStageDone("collect"));
}

TEST_F(OutputFolderTest, TheManifestNamesEveryArtifactAndIsWrittenOnce) {
  OutputFolder folder = MustOpen();
  root_.Write("out/means.safetensors", "means");
  root_.Write("out/checkpoint/config.json", "{}");
  root_.Write("out/checkpoint.partial/model.safetensors", "half");
  root_.Write("out/.bearing/service/worker.log", "log");
  ASSERT_TRUE(folder.WriteManifest({{"version", "0.1.0"}}).ok());
  const auto manifest = VerifyManifest(out_);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ((*manifest)["provenance"]["version"], "0.1.0");
  ASSERT_EQ((*manifest)["files"].size(), 2u);
  EXPECT_EQ((*manifest)["files"][0]["name"], "checkpoint/config.json");
  EXPECT_EQ((*manifest)["files"][1]["name"], "means.safetensors");
  EXPECT_EQ((*manifest)["files"][1]["sha256"], Sha256OfBytes("means"));
  EXPECT_EQ((*manifest)["files"][1]["size"], 5);
  EXPECT_EQ(folder.WriteManifest({}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kAlreadyExists) << "a finished run is not taken again";
}

TEST_F(OutputFolderTest, VerifyingFindsTheFirstDifference) {
  OutputFolder folder = MustOpen();
  root_.Write("out/a", "aaaa");
  root_.Write("out/b", "bbbb");
  ASSERT_TRUE(folder.WriteManifest({}).ok());
  Tamper("b", "bbbc");
  EXPECT_EQ(VerifyManifest(out_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(VerifyManifest(out_).status().message(), "the sha256 differs from the manifest: file=b");
  Tamper("b", "bb");
  EXPECT_EQ(VerifyManifest(out_).status().message(), "the size differs from the manifest: file=b size=2 manifest=4");
  fs::remove(out_ + "/a");
  EXPECT_EQ(VerifyManifest(out_).status().message(), "a file of the manifest is missing: file=a");
  EXPECT_EQ(VerifyManifest(root_.path()).status().code(), absl::StatusCode::kNotFound);
  root_.Write("out/manifest.json", R"({"files": [{"name": "../a", "size": 1, "sha256": ""}]})");
  EXPECT_THAT(std::string(VerifyManifest(out_).status().message()), HasSubstr("outside its folder: file=../a"));
  root_.Write("out/manifest.json", "[]");
  EXPECT_EQ(VerifyManifest(out_).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(OutputFolderTest, AtomicWritesReplaceAndLeaveNothingBehind) {
  fs::create_directories(out_);
  ASSERT_TRUE(WriteFileAtomically(out_ + "/a", "one").ok());
  ASSERT_TRUE(WriteFileAtomically(out_ + "/a", "two").ok());
  EXPECT_EQ(*ReadFile(out_ + "/a"), "two");
  EXPECT_EQ(CreateFileAtomically(out_ + "/a", "three").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*ReadFile(out_ + "/a"), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(out_), fs::directory_iterator()), 1);
  EXPECT_FALSE(WriteFileAtomically(root_.PathOf("none/a"), "x").ok());
}

TEST_F(OutputFolderTest, OfManyCreatorsOneSucceeds) {
  fs::create_directories(out_);
  std::atomic<int> created = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, i, &created] { created += CreateFileAtomically(out_ + "/a", std::to_string(i)).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
}

TEST_F(OutputFolderTest, DigestsAreThoseOfTheStandard) {
  EXPECT_EQ(Sha256OfBytes("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(*Sha256OfFile(root_.Write("abc", "abc")), Sha256OfBytes("abc"));
  EXPECT_EQ(Sha256OfFile(root_.PathOf("none")).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace bearing::jobs
