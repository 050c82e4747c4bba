#include "sharding/checkpoint_reader.h"

#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"
#include "tests/sharding/tiny_checkpoint.h"

namespace bearing::sharding {
namespace {

namespace fs = std::filesystem;
using bearing::testing::Fails;
using bearing::testing::ReadText;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::TensorBytes;
using bearing::testing::TinyModel;
using bearing::testing::WriteText;
using bearing::testing::WriteTinyCheckpoint;
using nlohmann::json;

constexpr char kFirst[] = "model-00001-of-00003.safetensors";
constexpr char kSecond[] = "model-00002-of-00003.safetensors";

class CheckpointReaderTest : public ::testing::Test {
 protected:
  TensorBytes Write(const TinyModel& model) { return WriteTinyCheckpoint(folder_.path(), model); }

  absl::StatusOr<std::unique_ptr<CheckpointReader>> Open() const { return CheckpointReader::Open(folder_.path()); }

  // Rewrites one file as JSON.
  template <typename Edit>
  void EditIndex(const Edit& edit) {
    json index = json::parse(ReadText(folder_ / "model.safetensors.index.json"));
    edit(index);
    WriteText(folder_ / "model.safetensors.index.json", index.dump());
  }

  const TempFolder folder_;
};

// The part `range` of an axis, picked element by element.
std::string Pick(const std::string& bytes, int64_t rows, int64_t columns, int64_t size, int axis, Range range) {
  std::string part;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t at = axis == 0 ? row : column;
      if (at >= range.begin && at < range.end)
        part += bytes.substr(static_cast<size_t>((row * columns + column) * size), static_cast<size_t>(size));
    }
  }
  return part;
}

TEST_F(CheckpointReaderTest, ReadsEveryTensorOfOneFileAndOfShards) {
  for (const int shards : {1, 3}) {
    const TempFolder folder;
    const TensorBytes want = WriteTinyCheckpoint(folder.path(), {.family = "qwen2", .shards = shards});
    const auto reader = CheckpointReader::Open(folder.path());
    ASSERT_TRUE(Succeeds(reader));
    EXPECT_EQ((*reader)->shards().size(), static_cast<size_t>(shards));
    EXPECT_EQ((*reader)->layout().entries().size(), want.size());
    for (const auto& [name, bytes] : want) {
      std::string got(bytes.size(), '\0');
      ASSERT_TRUE(Succeeds((*reader)->Read(name, absl::MakeSpan(got))));
      EXPECT_EQ(got, bytes) << name;
    }
  }
}

TEST_F(CheckpointReaderTest, SlicesEqualDirectIndexing) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const TempFolder folder;
    const TensorBytes tensors = WriteTinyCheckpoint(folder.path(), {.family = "qwen2", .shards = 2, .dtype = dtype});
    const auto reader = CheckpointReader::Open(folder.path());
    ASSERT_TRUE(Succeeds(reader));
    std::mt19937 random(2);
    for (const ParamEntry& entry : (*reader)->layout().entries()) {
      const int64_t rows = entry.shape[0];
      const int64_t columns = entry.shape.size() == 2 ? entry.shape[1] : 1;
      for (int axis = 0; axis < static_cast<int>(entry.shape.size()); ++axis) {
        const int64_t length = entry.shape[static_cast<size_t>(axis)];
        for (int repeat = 0; repeat < 8; ++repeat) {
          const auto begin = static_cast<int64_t>(random() % static_cast<uint64_t>(length + 1));
          const auto end = begin + static_cast<int64_t>(random() % static_cast<uint64_t>(length - begin + 1));
          const std::string want = Pick(tensors.at(entry.name), rows, columns, DTypeSize(dtype), axis, {begin, end});
          std::string got(want.size(), '\0');
          ASSERT_TRUE(Succeeds((*reader)->ReadSlice(entry.name, axis, {begin, end}, absl::MakeSpan(got))));
          EXPECT_EQ(got, want) << entry.name << " axis " << axis << " " << begin << ".." << end;
        }
      }
    }
  }
}

TEST_F(CheckpointReaderTest, SlicesOfAllRanksJoinToTheTensor) {
  const TensorBytes tensors = Write({});
  const auto reader = Open();
  ASSERT_TRUE(Succeeds(reader));
  for (const int64_t ranks : {1, 2, 3, 4, 6}) {
    const auto plan = MakeShardPlan((*reader)->config(), (*reader)->layout(), ranks);
    ASSERT_TRUE(Succeeds(plan));
    for (const ParamEntry& entry : (*reader)->layout().entries()) {
      if (entry.cut_axis != 0) continue;
      std::string joined;
      const size_t row_bytes = tensors.at(entry.name).size() / static_cast<size_t>(entry.shape[0]);
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const Range owned = OwnedSliceOf(entry, *plan, rank);
        std::string part(static_cast<size_t>(owned.size()) * row_bytes, '\0');
        ASSERT_TRUE(Succeeds((*reader)->ReadSlice(entry.name, 0, owned, absl::MakeSpan(part))));
        joined += part;
      }
      EXPECT_EQ(joined, tensors.at(entry.name)) << entry.name << " over " << ranks;
    }
  }
}

// Wider than the scratch buffer, so that columns are read in several blocks.
TEST_F(CheckpointReaderTest, ColumnsOfALargeTensor) {
  json config = json::parse(bearing::testing::TinyConfig({}));
  config["intermediate_size"] = 300'000;
  config["num_hidden_layers"] = 1;
  WriteText(folder_ / "config.json", config.dump());
  const ModelConfig parsed = *ParseModelConfig(config.dump(), "large");
  std::vector<uint16_t> values(16 * 300'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 40503);
  std::vector<SafetensorsTensor> tensors;
  const ParamLayout layout = ParamLayout::FromConfig(parsed);
  for (const ParamEntry& entry : layout.entries()) tensors.push_back({entry.name, DType::kBF16, entry.shape, values.data()});
  ASSERT_TRUE(Succeeds(WriteSafetensors(folder_ / "model.safetensors", tensors, {})));
  const auto reader = Open();
  ASSERT_TRUE(Succeeds(reader));
  const Range range{100'000, 250'001};
  std::vector<uint16_t> part(static_cast<size_t>(16 * range.size()));
  ASSERT_TRUE(Succeeds((*reader)->ReadSlice("model.layers.0.mlp.down_proj.weight", 1, range,
                                            absl::MakeSpan(reinterpret_cast<char*>(part.data()), part.size() * 2))));
  for (int64_t row = 0; row < 16; ++row) {
    for (const int64_t column : {int64_t{0}, int64_t{77'777}, range.size() - 1}) {
      EXPECT_EQ(part[static_cast<size_t>(row * range.size() + column)],
                values[static_cast<size_t>(row * 300'000 + range.begin + column)]);
    }
  }
}

TEST_F(CheckpointReaderTest, ManyThreadsMayRead) {
  const TensorBytes tensors = Write({.shards = 3});
  const auto reader = Open();
  ASSERT_TRUE(Succeeds(reader));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] {
      for (const auto& [name, bytes] : tensors) {
        std::string got(bytes.size(), '\0');
        if (!(*reader)->Read(name, absl::MakeSpan(got)).ok() || got != bytes) ++wrong[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST_F(CheckpointReaderTest, WrongRequestsAreNamed) {
  Write({});
  const auto opened = Open();
  ASSERT_TRUE(Succeeds(opened));
  const CheckpointReader& reader = **opened;
  const char* query = "model.layers.0.self_attn.q_proj.weight";
  std::string bytes(32, '\0');
  const auto out = absl::MakeSpan(bytes);
  EXPECT_TRUE(Fails(reader.Read("none", out), absl::StatusCode::kNotFound, "none", folder_.path()));
  EXPECT_TRUE(Fails(reader.Read(query, out), absl::StatusCode::kInvalidArgument, query, "want=768", "got=32"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, 2, {0, 1}, out), absl::StatusCode::kInvalidArgument, query, "axis=2"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, -1, {0, 1}, out), absl::StatusCode::kInvalidArgument, query));
  EXPECT_TRUE(Fails(reader.ReadSlice("model.norm.weight", 1, {0, 1}, out), absl::StatusCode::kInvalidArgument, "axes=1"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, 0, {24, 25}, out), absl::StatusCode::kInvalidArgument, query, "outside"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, 0, {-1, 0}, out), absl::StatusCode::kInvalidArgument, query, "outside"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, 0, {2, 1}, out), absl::StatusCode::kInvalidArgument, query, "outside"));
  EXPECT_TRUE(Fails(reader.ReadSlice(query, 0, {0, 2}, out), absl::StatusCode::kInvalidArgument, query, "want=64"));
}

TEST_F(CheckpointReaderTest, StoredDTypeCounts) {
  TinyModel model{.dtype = DType::kF32};
  Write(model);
  model.dtype = DType::kBF16;
  WriteText(folder_ / "config.json", bearing::testing::TinyConfig(model));
  const auto reader = Open();
  ASSERT_TRUE(Succeeds(reader));
  EXPECT_EQ((*reader)->config().dtype, DType::kF32);
  EXPECT_THAT((*reader)->config().eos_token_ids, ::testing::ElementsAre(7, 9));
}

TEST_F(CheckpointReaderTest, LinksOfAHubCacheAreFollowed) {
  const TempFolder cache;
  const TensorBytes tensors = WriteTinyCheckpoint(cache / "blobs", {.shards = 3});
  fs::create_directories(cache / "snapshots/main");
  for (const auto& file : fs::directory_iterator(cache / "blobs")) {
    const std::string name = file.path().filename();
    fs::create_symlink("../../blobs/" + name, cache / "snapshots/main/" + name);
  }
  const auto reader = CheckpointReader::Open(cache / "snapshots/main");
  ASSERT_TRUE(Succeeds(reader));
  std::string got(tensors.at("lm_head.weight").size(), '\0');
  EXPECT_TRUE(Succeeds((*reader)->Read("lm_head.weight", absl::MakeSpan(got))));
  EXPECT_EQ(got, tensors.at("lm_head.weight"));
}

TEST_F(CheckpointReaderTest, MissingFoldersAndFilesAreNamed) {
  EXPECT_TRUE(Fails(CheckpointReader::Open(folder_ / "none"), absl::StatusCode::kNotFound, folder_ / "none"));
  Write({.shards = 3});
  fs::remove(folder_ / kSecond);
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kNotFound, kSecond));
  fs::remove(folder_ / "model.safetensors.index.json");
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kNotFound, folder_.path(), "model.safetensors"));
}

TEST_F(CheckpointReaderTest, TruncatedShardIsNamed) {
  Write({.shards = 3});
  fs::resize_file(folder_ / kSecond, fs::file_size(folder_ / kSecond) - 1);
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, kSecond, "truncated", "tensor="));
}

TEST_F(CheckpointReaderTest, BrokenHeaderIsNamed) {
  Write({});
  std::string bytes = ReadText(folder_ / "model.safetensors");
  bytes[9] = '}';
  WriteText(folder_ / "model.safetensors", bytes);
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "model.safetensors"));
}

TEST_F(CheckpointReaderTest, IndexThatNamesTheWrongShard) {
  Write({.shards = 3});
  EditIndex([](json& index) { index["weight_map"]["model.embed_tokens.weight"] = kSecond; });
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "model.embed_tokens.weight", kSecond));
}

TEST_F(CheckpointReaderTest, IndexWithATensorThatIsNowhere) {
  Write({.shards = 3});
  EditIndex([](json& index) { index["weight_map"]["ghost"] = kFirst; });
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "ghost", kFirst));
}

TEST_F(CheckpointReaderTest, IndexWithoutATensorOfAShard) {
  Write({.shards = 3});
  EditIndex([](json& index) { index["weight_map"].erase("model.embed_tokens.weight"); });
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "model.embed_tokens.weight", kFirst));
}

TEST_F(CheckpointReaderTest, TensorStoredTwice) {
  Write({.shards = 3});
  fs::copy_file(folder_ / kFirst, folder_ / "again.safetensors");
  EditIndex([](json& index) { index["weight_map"]["ghost"] = "again.safetensors"; });
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "twice", "tensor=", kFirst, "again.safetensors"));
}

TEST_F(CheckpointReaderTest, MissingTensor) {
  Write({.shards = 1});
  json config = json::parse(ReadText(folder_ / "config.json"));
  config["num_hidden_layers"] = 3;
  WriteText(folder_ / "config.json", config.dump());
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kFailedPrecondition, "model.layers.2.input_layernorm.weight", folder_.path()));
}

TEST_F(CheckpointReaderTest, IndexMayNameOnlyFilesOfTheFolder) {
  Write({.shards = 3});
  fs::copy_file(folder_ / kFirst, fs::path(folder_.path()).parent_path() / "outside.safetensors",
                fs::copy_options::overwrite_existing);
  for (const std::string& name :
       {std::string("../outside.safetensors"), folder_ / kFirst, std::string("sub/a.safetensors"), std::string(".."),
        std::string(""), std::string("a\\b.safetensors"), std::string("a\0.safetensors", 14), std::string("config.json"),
        std::string(".hidden.safetensors")}) {
    EditIndex([&](json& index) { index["weight_map"]["model.embed_tokens.weight"] = name; });
    EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "model.safetensors.index.json", "model.embed_tokens.weight"))
        << name;
  }
  EditIndex([&](json& index) { index["weight_map"]["model.embed_tokens.weight"] = 3; });
  EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, "model.embed_tokens.weight"));
  fs::remove(fs::path(folder_.path()).parent_path() / "outside.safetensors");
}

TEST_F(CheckpointReaderTest, MalformedIndex) {
  Write({.shards = 3});
  const std::string path = folder_ / "model.safetensors.index.json";
  for (const char* text : {"", "{", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})",
                           R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})"}) {
    WriteText(path, text);
    EXPECT_TRUE(Fails(Open(), absl::StatusCode::kDataLoss, path)) << text;
  }
}

TEST_F(CheckpointReaderTest, DigestFollowsConfigAndHeaders) {
  Write({.shards = 3});
  const std::string digest = *(*Open())->Digest();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(*(*Open())->Digest(), digest);
  const TempFolder same;
  WriteTinyCheckpoint(same.path(), {.shards = 3});
  EXPECT_EQ(*(*CheckpointReader::Open(same.path()))->Digest(), digest);
  const TempFolder other;
  WriteTinyCheckpoint(other.path(), {.shards = 2});
  EXPECT_NE(*(*CheckpointReader::Open(other.path()))->Digest(), digest);
  WriteText(folder_ / "config.json", ReadText(folder_ / "config.json") + " ");
  EXPECT_NE(*(*Open())->Digest(), digest);
}

}  // namespace
}  // namespace bearing::sharding
