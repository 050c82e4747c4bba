// What storage/object_store.h promises, for whichever store BEARING_TEST_STORE names.
#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "storage/parallel.h"
#include "tests/storage/store_under_test.h"

namespace bearing::storage {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using ::testing::IsEmpty;
using testing::Succeeds;

using ObjectStoreConformanceTest = StoreUnderTest;

TEST_F(ObjectStoreConformanceTest, StoresWholeObjects) {
  const std::string key = Key("folder/a.bin");
  ASSERT_TRUE(Succeeds(store().Put(key, "first")));
  const absl::StatusOr<ObjectInfo> info = store().Stat(key);
  ASSERT_TRUE(Succeeds(info));
  EXPECT_EQ(info->key, key);
  EXPECT_EQ(info->size, 5);
  EXPECT_EQ(Content(key), "first");

  ASSERT_TRUE(Succeeds(store().Put(key, "another")));
  EXPECT_EQ(Content(key), "another");
  EXPECT_NE(store().Stat(key)->etag, info->etag);

  ASSERT_TRUE(Succeeds(store().Put(key, "")));
  EXPECT_EQ(Content(key), "");
}

TEST_F(ObjectStoreConformanceTest, NamesWhatIsNotThere) {
  const std::string key = Key("missing");
  EXPECT_TRUE(Fails(store().Stat(key), absl::StatusCode::kNotFound, key));
  std::string byte(1, '\0');
  EXPECT_TRUE(Fails(store().ReadRange(key, 0, absl::MakeSpan(byte)), absl::StatusCode::kNotFound, key));
  EXPECT_TRUE(Fails(store().Copy(key, Key("to")), absl::StatusCode::kNotFound, key));
  EXPECT_TRUE(Succeeds(store().Delete(key)));
  EXPECT_THAT(Keys(Key("nothing")), IsEmpty());
}

TEST_F(ObjectStoreConformanceTest, ListsAFolderAtAnyDepthAndNothingBesideIt) {
  for (const char* name : {"a/2", "a/1", "a/b/c/3", "ab/4", "a.5"}) ASSERT_TRUE(Succeeds(store().Put(Key(name), name)));
  EXPECT_THAT(Keys(Key("a")), ElementsAre(Key("a/1"), Key("a/2"), Key("a/b/c/3")));
  EXPECT_EQ(store().List(Key("a"))->at(0).size, 3);
  ASSERT_TRUE(Succeeds(store().Delete(Key("a/1"))));
  ASSERT_TRUE(Succeeds(store().Delete(Key("a/1"))));
  EXPECT_THAT(Keys(Key("a")), ElementsAre(Key("a/2"), Key("a/b/c/3")));
}

TEST_F(ObjectStoreConformanceTest, ListsMoreThanOnePage) {
  constexpr size_t kObjects = 1005;
  ASSERT_TRUE(Succeeds(ParallelFor(kObjects, 16, [&](size_t i) { return store().Put(Key(Concat("many/", i)), "x"); })));
  EXPECT_EQ(Keys(Key("many")).size(), kObjects);
}

TEST_F(ObjectStoreConformanceTest, KeepsUnusualNames) {
  const std::vector<std::string> names = {"a b", "a+b=c", "100%", "~x",      "r\xc3\xa9sum\xc3\xa9",
                                          "a&b", "c'd",   "e(f)", "g,h;i@j", "%41"};
  for (const std::string& name : names) {
    ASSERT_TRUE(Succeeds(store().Put(Key(Concat("odd/", name)), name))) << name;
    EXPECT_EQ(Content(Key(Concat("odd/", name))), name);
    ASSERT_TRUE(Succeeds(store().Copy(Key(Concat("odd/", name)), Key(Concat("copy/", name))))) << name;
    EXPECT_EQ(Content(Key(Concat("copy/", name))), name);
  }
  EXPECT_EQ(Keys(Key("odd")).size(), names.size());
}

TEST_F(ObjectStoreConformanceTest, RefusesNamesThatLeadElsewhere) {
  for (const char* name : {"a/../b", "a//b", "./a"}) {
    EXPECT_TRUE(Fails(store().Put(Concat(place_.uri.key, "/", name), "x"), absl::StatusCode::kInvalidArgument)) << name;
    EXPECT_TRUE(Fails(store().Stat(Concat(place_.uri.key, "/", name)), absl::StatusCode::kInvalidArgument)) << name;
  }
}

TEST_F(ObjectStoreConformanceTest, ReadsRangesOverPartBorders) {
  const std::string bytes = Pattern(2 * kPartBytes + 12345);
  const std::string key = Key("range");
  ASSERT_TRUE(Succeeds(store().Put(key, bytes)));
  const auto size = static_cast<int64_t>(bytes.size());
  const std::vector<std::pair<int64_t, int64_t>> ranges = {
      {0, size}, {0, 1}, {size - 1, 1}, {kPartBytes - 1, 2}, {1, kPartBytes}, {7, 2 * kPartBytes + 1}, {size, 0}};
  for (const auto& [offset, count] : ranges) {
    std::string part(static_cast<size_t>(count), '\0');
    ASSERT_TRUE(Succeeds(store().ReadRange(key, offset, absl::MakeSpan(part)))) << offset << "+" << count;
    EXPECT_EQ(part, bytes.substr(static_cast<size_t>(offset), static_cast<size_t>(count))) << offset << "+" << count;
  }
  std::string beyond(10, '\0');
  EXPECT_TRUE(Fails(store().ReadRange(key, size - 5, absl::MakeSpan(beyond)), absl::StatusCode::kDataLoss, key));
  EXPECT_TRUE(Fails(store().ReadRange(key, size + 5, absl::MakeSpan(beyond)), absl::StatusCode::kDataLoss, key));
}

TEST_F(ObjectStoreConformanceTest, NoticesThatAnObjectChanged) {
  const std::string key = Key("changing");
  ASSERT_TRUE(Succeeds(store().Put(key, "one")));
  const std::string etag = store().Stat(key)->etag;
  std::string out(3, '\0');
  EXPECT_TRUE(Succeeds(store().ReadRange(key, 0, absl::MakeSpan(out), etag)));
  ASSERT_TRUE(Succeeds(store().Put(key, "two")));
  EXPECT_TRUE(
      Fails(store().ReadRange(key, 0, absl::MakeSpan(out), etag), absl::StatusCode::kFailedPrecondition, key, "changed"));
}

TEST_F(ObjectStoreConformanceTest, WritesInPiecesOfAnySize) {
  const std::string bytes = Pattern(3 * kPartBytes + 777);
  for (const size_t piece : {size_t{1} << 20, size_t{3'333'333}, bytes.size()}) {
    const std::string key = Key(Concat("written-", piece));
    absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = store().Write(key, static_cast<int64_t>(bytes.size()));
    ASSERT_TRUE(Succeeds(writer));
    for (size_t at = 0; at < bytes.size(); at += piece) {
      ASSERT_TRUE(Succeeds((*writer)->Write(AsSpan(std::string_view(bytes).substr(at, piece)))));
    }
    EXPECT_TRUE(Fails(store().Stat(key), absl::StatusCode::kNotFound)) << "visible before it is whole";
    ASSERT_TRUE(Succeeds((*writer)->Finish()));
    EXPECT_TRUE(Content(key) == bytes) << piece;
  }
  EXPECT_TRUE(store().PendingUploads(place_.uri.key)->empty());
}

TEST_F(ObjectStoreConformanceTest, WritesNothingAsAnEmptyObject) {
  ASSERT_TRUE(Succeeds((*store().Write(Key("empty"), 0))->Finish()));
  EXPECT_EQ(store().Stat(Key("empty"))->size, 0);
}

TEST_F(ObjectStoreConformanceTest, LeavesNothingOfAnAbandonedWrite) {
  {
    auto writer = store().Write(Key("abandoned"), 0);
    ASSERT_TRUE(Succeeds(writer));
    ASSERT_TRUE(Succeeds((*writer)->Write(AsSpan(Pattern(2 * kPartBytes)))));
  }
  EXPECT_THAT(Keys(place_.uri.key), IsEmpty());
  EXPECT_TRUE(store().PendingUploads(place_.uri.key)->empty());
}

TEST_F(ObjectStoreConformanceTest, FindsAndAbortsWhatADeadWriterLeft) {
  const std::string key = Key("sub/orphan-of-it");
  auto writer = store().Write(key, 0);
  ASSERT_TRUE(Succeeds(writer));
  ASSERT_TRUE(Succeeds((*writer)->Write(AsSpan(Pattern(kPartBytes + 1)))));
  const absl::StatusOr<std::vector<PendingUpload>> left = store().PendingUploads(Key("sub"));
  ASSERT_TRUE(Succeeds(left));
  if (place_.uri.scheme == "az") {
    // Azure does not list what is not committed, and drops it after a week.
    EXPECT_TRUE(left->empty());
    EXPECT_TRUE(Fails(store().Stat(key), absl::StatusCode::kNotFound));
    return;
  }
  ASSERT_EQ(left->size(), 1u);
  EXPECT_EQ(left->at(0).key, key);
  EXPECT_TRUE(store().PendingUploads(Key("su"))->empty()) << "a prefix is a folder";
  ASSERT_TRUE(Succeeds(store().Abort(left->at(0))));
  ASSERT_TRUE(Succeeds(store().Abort(left->at(0))));
  EXPECT_TRUE(store().PendingUploads(place_.uri.key)->empty());
  // The writer whose upload is gone must not report success.
  EXPECT_FALSE((*writer)->Finish().ok());
  EXPECT_TRUE(Fails(store().Stat(key), absl::StatusCode::kNotFound));
}

TEST_F(ObjectStoreConformanceTest, CreatesOnlyWhatIsAbsent) {
  const std::string key = Key("once");
  ASSERT_TRUE(Succeeds(store().PutIfAbsent(key, "mine")));
  EXPECT_TRUE(Fails(store().PutIfAbsent(key, "other"), absl::StatusCode::kAlreadyExists, key));
  EXPECT_TRUE(Fails(store().PutIfAbsent(key, "longer than mine"), absl::StatusCode::kAlreadyExists, key));
  EXPECT_TRUE(Succeeds(store().PutIfAbsent(key, "mine"))) << "a retry of the same request";
  EXPECT_EQ(Content(key), "mine");
}

TEST_F(ObjectStoreConformanceTest, LetsOneOfManyCreatorsWin) {
  for (int round = 0; round < 5; ++round) {
    const std::string key = Key(Concat("race-", round));
    std::atomic<int> winner{-1};
    std::atomic<int> winners{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        const absl::Status status = store().PutIfAbsent(key, Concat("writer ", i));
        if (status.ok()) {
          winner = i;
          ++winners;
        } else {
          EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(Content(key), Concat("writer ", winner.load()));
  }
}

TEST_F(ObjectStoreConformanceTest, CopiesInsideTheStore) {
  // Small, and above the size that S3 copies in parts.
  for (const size_t size : {size_t{100}, static_cast<size_t>(13 << 20) + 5}) {
    const std::string bytes = Pattern(size);
    const std::string from = Key(Concat("from-", size));
    const std::string to = Key(Concat("to-", size));
    ASSERT_TRUE(Succeeds(store().Put(from, bytes)));
    ASSERT_TRUE(Succeeds(store().Put(to, "old")));
    ASSERT_TRUE(Succeeds(store().Copy(from, to)));
    EXPECT_TRUE(Content(to) == bytes);
    // The copy is an object of its own.
    ASSERT_TRUE(Succeeds(store().Put(from, "changed")));
    EXPECT_TRUE(Content(to) == bytes);
    ASSERT_TRUE(Succeeds(store().Delete(from)));
    EXPECT_TRUE(Content(to) == bytes);
  }
  EXPECT_TRUE(store().PendingUploads(place_.uri.key)->empty());
}

}  // namespace
}  // namespace bearing::storage
