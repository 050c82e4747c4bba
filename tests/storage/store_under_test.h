// The store that a test runs against: the one that BEARING_TEST_STORE names (object_servers.py), else a folder of this machine.
// Every test gets a place of its own in it.
#ifndef BEARING_TESTS_STORAGE_STORE_UNDER_TEST_H_
#define BEARING_TESTS_STORAGE_STORE_UNDER_TEST_H_

#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "sharding/concat.h"
#include "storage/location.h"
#include "storage/object_store.h"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::storage {

// Small parts, so that transfers of a few megabytes have several; 5 MiB is the least that S3 takes.
inline constexpr int64_t kPartBytes = 5 << 20;
inline constexpr bridge::BucketOptions kSmallParts = {
    .max_retries = 4, .retry_milliseconds = 30'000, .part_bytes = kPartBytes, .concurrency = 4, .copy_bytes = 6 << 20};

class StoreUnderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* bucket = std::getenv("BEARING_TEST_STORE");
    const std::string root = bucket != nullptr ? std::string(bucket) : folder_.path();
    const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
    absl::StatusOr<Location> opened =
        OpenLocation(Concat(root, "/", ::getpid(), "-", test->test_suite_name(), "-", test->name()), kSmallParts);
    ASSERT_TRUE(testing::Succeeds(opened));
    place_ = *opened;
    is_local_ = bucket == nullptr;
  }

  ObjectStore& store() { return *place_.store; }
  std::string Key(std::string_view name) const { return place_.KeyOf(name); }

  std::string Content(const std::string& key) {
    const absl::StatusOr<ObjectInfo> info = store().Stat(key);
    if (!info.ok()) return Concat("no object: ", std::string(info.status().message()));
    std::string bytes(static_cast<size_t>(info->size), '\0');
    EXPECT_TRUE(testing::Succeeds(store().ReadRange(key, 0, absl::MakeSpan(bytes))));
    return bytes;
  }

  std::vector<std::string> Keys(const std::string& prefix) {
    std::vector<std::string> keys;
    const absl::StatusOr<std::vector<ObjectInfo>> objects = store().List(prefix);
    EXPECT_TRUE(testing::Succeeds(objects));
    if (!objects.ok()) return keys;
    for (const ObjectInfo& object : *objects) keys.push_back(object.key);
    return keys;
  }

  testing::TempFolder folder_;
  Location place_;
  bool is_local_ = true;
};

// Bytes without a period that a part's length could hide.
inline std::string Pattern(size_t size, uint32_t seed = 1) {
  std::string bytes(size, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

inline absl::Span<const char> AsSpan(std::string_view bytes) { return absl::MakeConstSpan(bytes.data(), bytes.size()); }

}  // namespace bearing::storage

#endif  // BEARING_TESTS_STORAGE_STORE_UNDER_TEST_H_
