#include <cstdint>
#include <filesystem>
#include <limits>
#include <vector>

#include "sharding/safetensors.h"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::ReadText;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::WriteText;

class SafetensorsWriteTest : public ::testing::Test {
 protected:
  const TempFolder folder_;
  const std::string path_ = folder_ / "out.safetensors";
  const std::vector<float> floats_ = {1.0F, 2.5F, -3.0F};
  const std::vector<double> doubles_ = {0.125, 7.0};
  const std::vector<uint8_t> bytes_ = {1, 2, 3};
};

TEST_F(SafetensorsWriteTest, WideElementsFirstThenByName) {
  const std::vector<SafetensorsTensor> tensors = {{"z", DType::kU8, {3}, bytes_.data()},
                                                  {"m", DType::kF32, {3}, floats_.data()},
                                                  {"b", DType::kF64, {1, 2}, doubles_.data()},
                                                  {"a", DType::kF32, {}, floats_.data()}};
  ASSERT_TRUE(Succeeds(WriteSafetensors(path_, tensors, {{"layer", "11"}, {"model", "\"x\"\n"}})));
  const auto header = ReadSafetensorsHeader(path_);
  ASSERT_TRUE(Succeeds(header));
  EXPECT_EQ(header->data_begin % 8, 0);
  EXPECT_EQ(header->metadata.at("layer"), "11");
  EXPECT_EQ(header->metadata.at("model"), "\"x\"\n");
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : header->entries) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::ElementsAre("b", "a", "m", "z"));
  const std::string file = ReadText(path_);
  const SafetensorsEntry& m = header->entries[2];
  EXPECT_EQ(file.substr(static_cast<size_t>(m.file_offset), static_cast<size_t>(m.num_bytes)),
            std::string(reinterpret_cast<const char*>(floats_.data()), 12));
}

TEST_F(SafetensorsWriteTest, ReplacesAFileAndLeavesNothingBeside) {
  WriteText(path_, "old");
  WriteText(path_ + ".partial", "of a run that was killed");
  ASSERT_TRUE(Succeeds(WriteSafetensors(path_, {{{"a", DType::kF32, {3}, floats_.data()}}}, {})));
  EXPECT_TRUE(Succeeds(ReadSafetensorsHeader(path_)));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
}

TEST_F(SafetensorsWriteTest, NoTensorsIsAFileToo) {
  ASSERT_TRUE(Succeeds(WriteSafetensors(path_, {}, {})));
  EXPECT_TRUE(ReadSafetensorsHeader(path_)->entries.empty());
}

TEST_F(SafetensorsWriteTest, RefusesWhatCannotBeRead) {
  const auto write = [&](const std::vector<SafetensorsTensor>& tensors) { return WriteSafetensors(path_, tensors, {}); };
  const SafetensorsTensor a{"a", DType::kF32, {3}, floats_.data()};
  EXPECT_TRUE(Fails(write({a, a}), absl::StatusCode::kInvalidArgument, "tensor=a"));
  EXPECT_TRUE(
      Fails(write({{"__metadata__", DType::kF32, {3}, floats_.data()}}), absl::StatusCode::kInvalidArgument, "reserved"));
  EXPECT_TRUE(Fails(write({{"a", DType::kF32, {-3}, floats_.data()}}), absl::StatusCode::kInvalidArgument, "tensor=a"));
  EXPECT_TRUE(Fails(write({{"a", DType::kF32, {std::numeric_limits<int64_t>::max()}, floats_.data()}}),
                    absl::StatusCode::kInvalidArgument, "overflows"));
  EXPECT_TRUE(Fails(write({{"a", DType::kF32, {3}, nullptr}}), absl::StatusCode::kInvalidArgument, "no data"));
  EXPECT_TRUE(Fails(write({{"\xff", DType::kF32, {3}, floats_.data()}}), absl::StatusCode::kInvalidArgument, "UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(SafetensorsWriteTest, MissingFolderIsNamed) {
  const std::string path = folder_ / "none/out.safetensors";
  EXPECT_TRUE(Fails(WriteSafetensors(path, {}, {}), absl::StatusCode::kNotFound, path));
}

}  // namespace
}  // namespace bearing::sharding
