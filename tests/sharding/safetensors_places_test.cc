#include "sharding/safetensors_places.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::ReadText;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::WriteText;

class SafetensorsPlacesTest : public ::testing::Test {
 protected:
  const TempFolder folder_;
  const std::string path_ = folder_ / "out.safetensors";
  const std::vector<SafetensorsTensor> tensors_ = {{"rows", DType::kF32, {3, 2}}, {"ids", DType::kI64, {2}}};

  template <typename T>
  static absl::Span<const T> Span(const std::vector<T>& values) {
    return values;
  }
};

// The file is byte for byte the one that is written at once, whoever writes which place and when.
TEST_F(SafetensorsPlacesTest, EqualsAFileWrittenWhole) {
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> ids = {7, -8};
  const std::string whole = folder_ / "whole.safetensors";
  ASSERT_TRUE(Succeeds(WriteSafetensors(
      whole, {{"rows", DType::kF32, {3, 2}, rows.data()}, {"ids", DType::kI64, {2}, ids.data()}}, {{"a", "b"}})));

  auto creator = SafetensorsPlaces::Create(path_, tensors_, {{"a", "b"}});
  ASSERT_TRUE(Succeeds(creator));
  {
    auto other = SafetensorsPlaces::Join(path_);
    ASSERT_TRUE(Succeeds(other));
    ASSERT_TRUE(Succeeds(other->Write("rows", 4, Span<float>({5, 6}))));
    ASSERT_TRUE(Succeeds(other->Sync()));
  }
  ASSERT_TRUE(Succeeds(creator->Write("ids", 0, Span(ids))));
  ASSERT_TRUE(Succeeds(creator->Write("rows", 0, Span<float>({1, 2, 3, 4}))));
  EXPECT_FALSE(std::filesystem::exists(path_)) << "no file of that name before it is whole";
  std::vector<float> read(3);
  ASSERT_TRUE(Succeeds(creator->Read("rows", 3, absl::MakeSpan(read))));
  EXPECT_EQ(read, (std::vector<float>{4, 5, 6}));
  ASSERT_TRUE(Succeeds(creator->Finish()));
  EXPECT_EQ(ReadText(path_), ReadText(whole));
}

TEST_F(SafetensorsPlacesTest, WhatIsNotFinishedGoes) {
  WriteText(path_ + ".partial", "of a run that was killed");
  {
    auto places = SafetensorsPlaces::Create(path_, tensors_, {});
    ASSERT_TRUE(Succeeds(places));
    const SafetensorsPlaces moved = *std::move(places);
    EXPECT_TRUE(std::filesystem::exists(path_ + ".partial"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(SafetensorsPlacesTest, RefusesOtherPlaces) {
  auto places = SafetensorsPlaces::Create(path_, tensors_, {});
  ASSERT_TRUE(Succeeds(places));
  EXPECT_TRUE(Fails(places->Write("columns", 0, Span<float>({1})), absl::StatusCode::kInvalidArgument, "no such tensor"));
  EXPECT_TRUE(Fails(places->Write("rows", 5, Span<float>({1, 2})), absl::StatusCode::kInvalidArgument, "outside of a tensor"));
  EXPECT_TRUE(Fails(places->Write("rows", -1, Span<float>({1})), absl::StatusCode::kInvalidArgument, "outside of a tensor"));
  EXPECT_TRUE(Fails(places->Write("rows", int64_t{1} << 62, Span<float>({1})), absl::StatusCode::kInvalidArgument, "outside"));
  EXPECT_TRUE(Fails(places->Write("rows", 0, Span<int64_t>({1})), absl::StatusCode::kInvalidArgument, "outside of a tensor"));
  EXPECT_TRUE(Succeeds(places->Write("rows", 6, Span<float>({}))));
}

TEST_F(SafetensorsPlacesTest, RefusesBadTensors) {
  const std::vector<SafetensorsTensor> negative = {{"a", DType::kF32, {-1}}};
  const std::vector<SafetensorsTensor> twice = {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}};
  EXPECT_TRUE(Fails(SafetensorsPlaces::Create(path_, negative, {}), absl::StatusCode::kInvalidArgument, "shape"));
  EXPECT_TRUE(Fails(SafetensorsPlaces::Create(path_, twice, {}), absl::StatusCode::kInvalidArgument, "twice"));
  EXPECT_FALSE(SafetensorsPlaces::Join(path_).ok());
}

}  // namespace
}  // namespace bearing::sharding
