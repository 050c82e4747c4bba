// The commit protocol: all or nothing, one winner, and a rerun that ends what any earlier run began.
#include "storage/publisher.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "gmock/gmock.h"
#include "sharding/sha256.h"
#include "tests/storage/failing_store.h"
#include "tests/storage/store_under_test.h"

namespace bearing::storage {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using ::testing::IsEmpty;
using testing::ReadText;
using testing::Succeeds;
using testing::TempFolder;
using testing::WriteText;

class PublisherTest : public StoreUnderTest {
 protected:
  void SetUp() override {
    StoreUnderTest::SetUp();
    MakeSource(source_.path(), 1);
  }

  static void MakeSource(const std::string& folder, uint32_t seed) {
    std::filesystem::create_directories(folder + "/deep/er");
    WriteText(folder + "/config.json", Concat("{\"seed\": ", seed, "}"));
    WriteText(folder + "/empty", "");
    WriteText(folder + "/deep/er/shard.safetensors", Pattern(kPartBytes + 99, seed));
  }

  // The destination holds exactly the files of `folder` and a manifest that is true.
  void ExpectPublished(const std::string& folder) {
    const absl::StatusOr<std::vector<PublishedFile>> files = VerifyPublished(place_);
    ASSERT_TRUE(Succeeds(files));
    std::vector<std::string> names;
    for (const PublishedFile& file : *files) {
      names.push_back(file.name);
      EXPECT_EQ(file.sha256, *sharding::Sha256OfFile(folder + "/" + file.name)) << file.name;
    }
    EXPECT_THAT(names, ElementsAre("config.json", "deep/er/shard.safetensors", "empty"));
    EXPECT_THAT(Keys(place_.uri.key),
                ElementsAre(Key("config.json"), Key("deep/er/shard.safetensors"), Key("empty"), Key("manifest.json")));
    EXPECT_TRUE(store().PendingUploads(place_.uri.key)->empty());
  }

  // What a reader may see at any moment: no manifest, or one whose files are all there and right.
  void ExpectNothingHalfDone() {
    const absl::StatusOr<ObjectInfo> manifest = store().Stat(Key("manifest.json"));
    if (!manifest.ok()) return;
    EXPECT_TRUE(Succeeds(VerifyPublished(place_)));
  }

  absl::Status Publish(const std::string& folder, bool overwrite = false) { return PublishAt(place_, folder, overwrite); }
  static absl::Status PublishAt(const Location& place, const std::string& folder, bool overwrite = false) {
    return PublishFolder(folder, place, {.overwrite = overwrite, .parallel_files = 2}, {{"made_by", "test"}});
  }

  TempFolder source_;
};

TEST_F(PublisherTest, PublishesAFolder) {
  ASSERT_TRUE(Succeeds(Publish(source_.path())));
  ExpectPublished(source_.path());
  EXPECT_EQ(nlohmann::json::parse(Content(Key("manifest.json")))["made_by"], "test");
  ASSERT_TRUE(Succeeds(Publish(source_.path()))) << "the same again is done already";
  ExpectPublished(source_.path());
}

TEST_F(PublisherTest, KeepsTheManifestOfAFinishedFolder) {
  const std::string text =
      MakeManifest({{"config.json", 11, *sharding::Sha256OfFile(source_ / "config.json")}}, {{"provenance", 7}});
  WriteText(source_ / "manifest.json", text);
  ASSERT_TRUE(Succeeds(Publish(source_.path())));
  EXPECT_EQ(Content(Key("manifest.json")), text);
  EXPECT_THAT(Keys(place_.uri.key), ElementsAre(Key("config.json"), Key("manifest.json"))) << "only what the manifest names";
}

TEST_F(PublisherTest, RefusesAFileThatIsNotThatOfTheManifest) {
  WriteText(source_ / "manifest.json", MakeManifest({{"config.json", 11, std::string(64, '0')}}, {}));
  EXPECT_TRUE(Fails(Publish(source_.path()), absl::StatusCode::kDataLoss, "config.json", "manifest"));
  EXPECT_TRUE(Fails(store().Stat(Key("manifest.json")), absl::StatusCode::kNotFound));
  WriteText(source_ / "manifest.json", MakeManifest({{"../config.json", 11, std::string(64, '0')}}, {}));
  EXPECT_TRUE(Fails(Publish(source_.path()), absl::StatusCode::kDataLoss, "outside"));
}

TEST_F(PublisherTest, AnAttemptThatIsNoHashOfTheManifestIsKnownByItsClaim) {
  const auto begin = [&](const std::string& attempt) { return Publisher::Create(place_, attempt, {})->Begin(); };
  absl::StatusOr<Publisher> publisher = Publisher::Create(place_, "edit-1", {});
  ASSERT_TRUE(Succeeds(publisher));
  ASSERT_FALSE(*publisher->Begin());
  const auto staged = publisher->Stage("config.json", 0);
  ASSERT_TRUE(Succeeds(staged));
  ASSERT_TRUE(Succeeds((*staged)->Write("{}")));
  const auto file = (*staged)->Finish("what was measured");
  ASSERT_TRUE(Succeeds(file));
  ASSERT_TRUE(Succeeds(publisher->StageText("README.md", "text")));
  ASSERT_TRUE(Succeeds(publisher->WriteNote("rank-0", "kept")));
  EXPECT_EQ(*publisher->ReadNote("rank-0"), "kept");
  EXPECT_TRUE(Fails(publisher->ReadNote("rank-1"), absl::StatusCode::kDataLoss, "rank-1"));
  const auto record = publisher->RecordOf("config.json");
  ASSERT_TRUE(Succeeds(record));
  EXPECT_EQ(record->file, *file);
  EXPECT_EQ(record->note, "what was measured");
  EXPECT_TRUE(Fails(publisher->RecordOf("nothing"), absl::StatusCode::kNotFound, "nothing"));

  const std::vector<PublishedFile> files = {*file, publisher->RecordOf("README.md")->file};
  const std::string manifest = MakeManifest(files, {});
  ASSERT_TRUE(Succeeds(publisher->Commit(files, manifest)));
  EXPECT_THAT(Keys(place_.uri.key), ElementsAre(Key("README.md"), Key("config.json"), Key("manifest.json")));
  EXPECT_TRUE(Fails(begin("edit-1"), absl::StatusCode::kAlreadyExists, "finished set"));

  // As a writer leaves it that dies before it has tidied up.
  const std::string claim = nlohmann::json{{"attempt", "edit-1"}, {"manifest", manifest}}.dump();
  ASSERT_TRUE(Succeeds(store().Put(Key(".attempts/commit.json"), claim)));
  ASSERT_TRUE(Succeeds(store().Put(Key(".attempts/edit-1/files/config.json"), "{}")));
  EXPECT_TRUE(Fails(begin("edit-2"), absl::StatusCode::kAlreadyExists));
  const auto again = begin("edit-1");
  ASSERT_TRUE(Succeeds(again));
  EXPECT_TRUE(*again);
  EXPECT_THAT(Keys(place_.uri.key), ElementsAre(Key("README.md"), Key("config.json"), Key("manifest.json")));
}

TEST_F(PublisherTest, RefusesAPlaceThatIsTaken) {
  ASSERT_TRUE(Succeeds(store().Put(Key("somebody.txt"), "mine")));
  EXPECT_TRUE(Fails(Publish(source_.path()), absl::StatusCode::kAlreadyExists, "not empty", "somebody.txt"));
  EXPECT_THAT(Keys(place_.uri.key), ElementsAre(Key("somebody.txt")));
  ASSERT_TRUE(Succeeds(Publish(source_.path(), /*overwrite=*/true)));
  ExpectPublished(source_.path());
}

TEST_F(PublisherTest, RefusesAFinishedSetAndReplacesItWhenTold) {
  ASSERT_TRUE(Succeeds(Publish(source_.path())));
  TempFolder other;
  MakeSource(other.path(), 2);
  EXPECT_TRUE(Fails(Publish(other.path()), absl::StatusCode::kAlreadyExists, "finished set"));
  ExpectPublished(source_.path());
  ASSERT_TRUE(Succeeds(Publish(other.path(), /*overwrite=*/true)));
  ExpectPublished(other.path());
}

TEST_F(PublisherTest, KeepsWhatIsStagedAndRightAndRedoesTheRest) {
  const std::string manifest = MakeManifest({{"empty", 0, *sharding::Sha256OfFile(source_ / "empty")},
                                             {"config.json", 11, *sharding::Sha256OfFile(source_ / "config.json")}},
                                            {});
  absl::StatusOr<Publisher> publisher = Publisher::Create(place_, *sharding::Sha256Hex(manifest), {});
  ASSERT_TRUE(Succeeds(publisher));
  ASSERT_FALSE(*publisher->Begin());
  ASSERT_TRUE(Succeeds(publisher->StageLocalFile("config.json", source_ / "config.json")));
  const std::string staged = Key(Concat(".attempts/", publisher->attempt(), "/files/config.json"));
  const std::string etag = store().Stat(staged)->etag;
  EXPECT_TRUE(publisher->FindStaged("config.json")->has_value());
  EXPECT_FALSE(publisher->FindStaged("empty")->has_value());
  EXPECT_TRUE(
      Fails(CheckFinished(place_, *store().List(place_.uri.key)), absl::StatusCode::kFailedPrecondition, "not finished"));

  ASSERT_TRUE(Succeeds(publisher->StageLocalFile("config.json", source_ / "config.json")));
  EXPECT_EQ(store().Stat(staged)->etag, etag) << "written again although it was right";

  // The same size, other bytes: only the hash tells.
  ASSERT_TRUE(Succeeds(store().Put(staged, "{\"seed\": 7}")));
  EXPECT_FALSE(publisher->FindStaged("config.json")->has_value());
  ASSERT_TRUE(Succeeds(publisher->StageLocalFile("config.json", source_ / "config.json")));
  EXPECT_EQ(Content(staged), "{\"seed\": 1}");

  EXPECT_TRUE(Fails(publisher->Commit(*ParseManifest(manifest, ""), manifest), absl::StatusCode::kDataLoss, "empty"));
  ASSERT_TRUE(Succeeds(publisher->StageLocalFile("empty", source_ / "empty")));
  ASSERT_TRUE(Succeeds(publisher->Commit(*ParseManifest(manifest, ""), manifest)));
  EXPECT_TRUE(Succeeds(VerifyPublished(place_)));
}

TEST_F(PublisherTest, StagesStreamsAndCopies) {
  const std::string bytes = Pattern(kPartBytes + 5);
  ASSERT_TRUE(Succeeds(store().Put(Concat(place_.uri.key, "-source/shard"), bytes)));
  absl::StatusOr<Publisher> publisher = Publisher::Create(place_, "attempt-1", {});
  ASSERT_FALSE(*publisher->Begin());
  auto staged = publisher->Stage("streamed", 0);
  ASSERT_TRUE(Succeeds(staged));
  ASSERT_TRUE(Succeeds((*staged)->Write(AsSpan("hello"))));
  const absl::StatusOr<PublishedFile> streamed = (*staged)->Finish();
  ASSERT_TRUE(Succeeds(streamed));
  const absl::StatusOr<PublishedFile> copied = publisher->StageCopy("copied", Concat(place_.uri.key, "-source/shard"));
  ASSERT_TRUE(Succeeds(copied));
  EXPECT_EQ(copied->sha256, *sharding::Sha256Hex(bytes));
  const std::string manifest = MakeManifest({*streamed, *copied}, {{"attempt", "attempt-1"}});
  ASSERT_TRUE(Succeeds(publisher->Commit({*streamed, *copied}, manifest)));
  EXPECT_TRUE(Succeeds(VerifyPublished(place_)));
  EXPECT_EQ(Content(Key("streamed")), "hello");
  EXPECT_TRUE(*Publisher::Create(place_, "attempt-1", {})->Begin()) << "finished already";
}

TEST_F(PublisherTest, RefusesNamesThatLeadElsewhere) {
  absl::StatusOr<Publisher> publisher = Publisher::Create(place_, "a", {});
  for (const char* name : {"../x", "a//b", "/etc/passwd", "manifest.json", ".attempts/x", "", "a/.."}) {
    EXPECT_TRUE(Fails(publisher->Stage(name, 0), absl::StatusCode::kInvalidArgument)) << name;
  }
  EXPECT_TRUE(Fails(Publisher::Create(place_, "../a", {}), absl::StatusCode::kInvalidArgument));
}

// Dies after every possible number of calls to the store, with and without something to overwrite; each time the rerun must end
// with the same bytes, and nobody may have seen a manifest of something incomplete.
TEST_F(PublisherTest, SurvivesDeathAtEveryCall) {
  const int step = is_local_ ? 1 : 3;
  bool died = true;
  for (int calls = 0; died; calls += step) {
    SCOPED_TRACE(Concat("calls=", calls));
    Location place = place_;
    place.store = std::make_shared<FailingStore>(place_.store, calls);
    const absl::Status first = PublishAt(place, source_.path());
    died = static_cast<FailingStore&>(*place.store).failed();
    EXPECT_EQ(first.ok(), !died) << first;
    ExpectNothingHalfDone();
    ASSERT_TRUE(Succeeds(Publish(source_.path())));
    ExpectPublished(source_.path());
    for (const std::string& key : Keys(place_.uri.key)) ASSERT_TRUE(Succeeds(store().Delete(key)));
  }
}

TEST_F(PublisherTest, SurvivesDeathWhileItOverwrites) {
  TempFolder old;
  MakeSource(old.path(), 2);
  WriteText(old / "gone", "a file that only the old set has");
  const int step = is_local_ ? 1 : 7;
  bool died = true;
  for (int calls = 0; died; calls += step) {
    SCOPED_TRACE(Concat("calls=", calls));
    ASSERT_TRUE(Succeeds(Publish(old.path(), /*overwrite=*/true)));
    Location place = place_;
    place.store = std::make_shared<FailingStore>(place_.store, calls);
    PublishAt(place, source_.path(), /*overwrite=*/true).IgnoreError();
    died = static_cast<FailingStore&>(*place.store).failed();
    ExpectNothingHalfDone();
    ASSERT_TRUE(Succeeds(Publish(source_.path(), /*overwrite=*/true)));
    ExpectPublished(source_.path());
  }
}

TEST_F(PublisherTest, OneOfTwoWritersWins) {
  TempFolder other;
  MakeSource(other.path(), 2);
  for (int round = 0; round < (is_local_ ? 60 : 6); ++round) {
    absl::Status first, second;
    std::thread thread([&] { first = Publish(source_.path()); });
    second = Publish(other.path());
    thread.join();
    ASSERT_NE(first.ok(), second.ok()) << first << "\n" << second;
    const absl::Status& loser = first.ok() ? second : first;
    EXPECT_TRUE(absl::IsAlreadyExists(loser)) << loser;
    // What the loser staged may still lie there; the winner's set is whole.
    EXPECT_TRUE(Succeeds(VerifyPublished(place_)));
    const std::string winner = first.ok() ? source_.path() : other.path();
    EXPECT_EQ(Content(Key("config.json")), ReadText(winner + "/config.json"));
    ASSERT_TRUE(Succeeds(Publish(winner)));
    for (const std::string& key : Keys(place_.uri.key)) ASSERT_TRUE(Succeeds(store().Delete(key)));
  }
}

TEST_F(PublisherTest, AReaderSeesWhatAManifestContradicts) {
  ASSERT_TRUE(Succeeds(Publish(source_.path())));
  ASSERT_TRUE(Succeeds(CheckFinished(place_, *store().List(place_.uri.key))));
  ASSERT_TRUE(Succeeds(store().Put(Key("config.json"), "{\"seed\": 9}")));
  EXPECT_TRUE(Fails(VerifyPublished(place_), absl::StatusCode::kDataLoss, "sha256", "config.json"));
  ASSERT_TRUE(Succeeds(store().Put(Key("config.json"), "short")));
  EXPECT_TRUE(Fails(CheckFinished(place_, *store().List(place_.uri.key)), absl::StatusCode::kDataLoss, "size", "config.json"));
  ASSERT_TRUE(Succeeds(store().Delete(Key("config.json"))));
  EXPECT_TRUE(
      Fails(CheckFinished(place_, *store().List(place_.uri.key)), absl::StatusCode::kDataLoss, "missing", "config.json"));
}

}  // namespace
}  // namespace bearing::storage
