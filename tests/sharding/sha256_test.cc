#include "sharding/sha256.h"

#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::TempFolder;

// Examples of FIPS 180-2.
constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256Test, KnownDigests) {
  EXPECT_EQ(*Sha256Hex(""), kEmpty);
  EXPECT_EQ(*Sha256Hex("abc"), kAbc);
}

TEST(Sha256Test, PartsGiveTheDigestOfTheWhole) {
  Sha256 sha;
  for (int i = 0; i < 1000; ++i) sha.Update(std::string(1000, 'a'));
  EXPECT_EQ(*sha.Finish(), kMillionA);
}

TEST(Sha256Test, File) {
  const TempFolder folder;
  bearing::testing::WriteText(folder / "a", std::string(1'000'000, 'a'));
  bearing::testing::WriteText(folder / "empty", "");
  EXPECT_EQ(*Sha256OfFile(folder / "a"), kMillionA);
  EXPECT_EQ(*Sha256OfFile(folder / "empty"), kEmpty);
  EXPECT_TRUE(Fails(Sha256OfFile(folder / "none"), absl::StatusCode::kNotFound, folder / "none"));
  EXPECT_TRUE(Fails(Sha256OfFile(folder.path()), absl::StatusCode::kInvalidArgument, folder.path()));
}

}  // namespace
}  // namespace bearing::sharding
