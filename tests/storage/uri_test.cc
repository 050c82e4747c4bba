#include "storage/uri.h"

#include <filesystem>

#include "tests/sharding/status_testing.h"

namespace bearing::storage {
namespace {

using testing::Fails;
using testing::Succeeds;

std::string Canonical(std::string_view text) {
  const absl::StatusOr<Uri> uri = ParseUri(text);
  return uri.ok() ? uri->ToString() : std::string(uri.status().message());
}

TEST(UriTest, PathsAndFileAddressesAreTheSame) {
  for (const char* text : {"/a/b", "/a/b/", "/a//b", "/a/x/../b", "file:///a/b", "file://localhost/a/b/"}) {
    EXPECT_EQ(Canonical(text), "/a/b") << text;
    EXPECT_TRUE(ParseUri(text)->is_local());
  }
  EXPECT_EQ(Canonical("file:///with%20space%25"), "/with space%");
  EXPECT_EQ(Canonical("/"), "/");
  EXPECT_EQ(Canonical("a/b"), (std::filesystem::current_path() / "a/b").string());
  EXPECT_FALSE(HasScheme("C:/x"));
  EXPECT_FALSE(HasScheme("/a://b"));
}

TEST(UriTest, BucketsHaveNameAndKey) {
  const absl::StatusOr<Uri> uri = ParseUri("s3://models/llama/8b/");
  ASSERT_TRUE(Succeeds(uri));
  EXPECT_EQ(uri->scheme, "s3");
  EXPECT_EQ(uri->bucket, "models");
  EXPECT_EQ(uri->key, "llama/8b");
  EXPECT_EQ(uri->Root(), "s3://models");
  for (const char* text : {"s3://b", "gs://my_bucket.x/k", "az://container/a b/c%d"}) EXPECT_EQ(Canonical(text), text);
  EXPECT_EQ(Canonical("s3://b/"), "s3://b");
}

TEST(UriTest, RefusesWhatItCannotMean) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_TRUE(Fails(ParseUri("ftp://h/p"), invalid, "scheme=ftp"));
  EXPECT_TRUE(Fails(ParseUri("S3://b/k"), invalid, "scheme=S3"));
  EXPECT_TRUE(Fails(ParseUri("s3:///k"), invalid, "name of a bucket"));
  EXPECT_TRUE(Fails(ParseUri("s3://b u/k"), invalid, "bucket's name"));
  EXPECT_TRUE(Fails(ParseUri("s3://b/a//c"), invalid, "empty part"));
  EXPECT_TRUE(Fails(ParseUri("s3://b/../../etc/passwd"), invalid, ".."));
  EXPECT_TRUE(Fails(ParseUri("s3://b/a/./c"), invalid, ".."));
  EXPECT_TRUE(Fails(ParseUri("s3://b/a\nc"), invalid, "control"));
  EXPECT_TRUE(Fails(ParseUri("s3://b/k?region=eu"), invalid, "environment"));
  EXPECT_TRUE(Fails(ParseUri(std::string("s3://b/") + std::string(1025, 'k')), invalid, "1024"));
  EXPECT_TRUE(Fails(ParseUri("file://host/p"), invalid, "file:///"));
  EXPECT_TRUE(Fails(ParseUri("file:///a%2"), invalid, "hex"));
  EXPECT_TRUE(Fails(ParseUri(""), invalid, "empty"));
}

TEST(UriTest, DoesNotRepeatAPassword) {
  const absl::Status status = ParseUri("s3://user:canary-secret@bucket/key").status();
  EXPECT_TRUE(Fails(status, absl::StatusCode::kInvalidArgument, "credentials"));
  EXPECT_EQ(status.ToString().find("canary"), std::string::npos);
}

}  // namespace
}  // namespace bearing::storage
