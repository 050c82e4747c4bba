#include "sharding/checkpoint_writer.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "sharding/checkpoint_reader.h"
#include "sharding/direct_file.h"
#include "sharding/posix_file.h"
#include "sharding/shard_plan.h"
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
using nlohmann::ordered_json;

constexpr char kDown[] = "model.layers.1.mlp.down_proj.weight";
constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kIndex[] = "model.safetensors.index.json";

TensorBytes ReadAll(const std::string& folder) {
  TensorBytes tensors;
  const auto reader = CheckpointReader::Open(folder);
  EXPECT_TRUE(Succeeds(reader));
  if (!reader.ok()) return tensors;
  for (const CheckpointReader::Shard& shard : (*reader)->shards()) {
    for (const SafetensorsEntry& entry : shard.header.entries) {
      std::string& bytes = tensors[entry.name];
      bytes.resize(static_cast<size_t>(entry.num_bytes));
      EXPECT_TRUE(Succeeds((*reader)->Read(entry.name, absl::MakeSpan(bytes))));
    }
  }
  return tensors;
}

// Every file of a folder, by path relative to it.
std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& file : fs::recursive_directory_iterator(folder)) {
    if (file.is_regular_file()) files[fs::relative(file.path(), folder).string()] = ReadText(file.path().string());
  }
  return files;
}

class CheckpointWriterTest : public ::testing::Test {
 protected:
  void Open(const TinyModel& model) {
    tensors_ = WriteTinyCheckpoint(in_, model);
    tied_ = model.tied;
    Reopen();
  }

  void Reopen() {
    auto source = WeightFiles::Open(in_);
    ASSERT_TRUE(Succeeds(source));
    source_ = *std::move(source);
  }

  CopyChanges Changes(bool untie) const {
    CopyChanges changes;
    changes.untie = untie && tied_;
    changes.embedding = kEmbedding;
    changes.unembedding = "lm_head.weight";
    return changes;
  }

  std::unique_ptr<CheckpointWriter> Create(const std::string& out, bool untie = true) {
    auto plan = MakeCopyPlan(*source_, Changes(untie));
    EXPECT_TRUE(Succeeds(plan));
    plans_.push_back(std::make_unique<CopyPlan>(*std::move(plan)));
    auto writer = CheckpointWriter::Create(source_.get(), plans_.back().get(), out);
    EXPECT_TRUE(Succeeds(writer));
    return *std::move(writer);
  }

  // The bytes that a file of the plan is to have.
  std::string Content(const CopyPlan& plan, size_t file, const TensorBytes& edits) const {
    std::string bytes = plan.files[file].framed_header;
    for (const OutputTensor& tensor : plan.tensors) {
      if (tensor.file != file) continue;
      EXPECT_EQ(static_cast<int64_t>(bytes.size()), tensor.offset);
      if (const auto edit = edits.find(tensor.name); edit != edits.end()) {
        bytes += edit->second;
        continue;
      }
      std::string part(static_cast<size_t>(tensor.num_bytes), '\0');
      EXPECT_TRUE(Succeeds(source_->Read(tensor.source->shard, tensor.source->offset, absl::MakeSpan(part))));
      bytes += part;
    }
    return bytes;
  }

  // The calling rank's share of every file, in pieces of odd sizes.
  void WriteShare(CheckpointWriter& writer, const CopyPlan& plan, const TensorBytes& edits, int rank, int ranks) const {
    for (size_t file = 0; file < plan.files.size(); ++file) {
      const std::string bytes = Content(plan, file, edits);
      const Range mine = EvenRange(static_cast<int64_t>(bytes.size()), ranks, rank);
      for (int64_t at = mine.begin; at < mine.end; at += 1001) {
        const auto size = static_cast<size_t>(std::min<int64_t>(1001, mine.end - at));
        ASSERT_TRUE(Succeeds(writer.WritePart(file, at, absl::MakeConstSpan(bytes.data() + at, size))));
      }
    }
  }

  // The whole job with `ranks` writers; `edits` maps a tensor to its new bytes.
  void WriteCopy(const std::string& out, const TensorBytes& edits, int ranks, bool untie = true) {
    std::vector<std::unique_ptr<CheckpointWriter>> writers;
    for (int rank = 0; rank < ranks; ++rank) writers.push_back(Create(out, untie));
    ASSERT_TRUE(Succeeds(writers[0]->Prepare()));
    for (int rank = 0; rank < ranks; ++rank) {
      CheckpointWriter& writer = *writers[static_cast<size_t>(rank)];
      WriteShare(writer, *plans_.back(), edits, rank, ranks);
      ASSERT_TRUE(Succeeds(writer.Sync()));
    }
    EXPECT_FALSE(fs::exists(out));
    ASSERT_TRUE(Succeeds(writers[0]->Commit()));
    EXPECT_FALSE(fs::exists(out + ".partial"));
  }

  std::string Edited(const std::string& tensor) const { return std::string(tensors_.at(tensor).size(), 'e'); }

  const TempFolder folder_;
  const std::string in_ = folder_ / "in";
  const std::string out_ = folder_ / "out";
  TensorBytes tensors_;
  bool tied_ = false;
  std::unique_ptr<WeightFiles> source_;
  std::vector<std::unique_ptr<CopyPlan>> plans_;
};

TEST_F(CheckpointWriterTest, UneditedCopyHasTheSameBytesInEveryFile) {
  for (const int shards : {1, 3}) {
    const TempFolder folder;
    Open({.family = "qwen2", .shards = shards});
    const auto reader = CheckpointReader::Open(in_);
    ASSERT_TRUE(Succeeds(reader));
    const auto writer = Create(folder / "out");
    ASSERT_TRUE(Succeeds(writer->Prepare({0})));
    // Where the file system shares blocks the file is complete already, and writing it again changes nothing.
    const auto cloned = writer->ClonedFiles();
    ASSERT_TRUE(Succeeds(cloned));
    WriteShare(*writer, *plans_.back(), {}, 0, 1);
    ASSERT_TRUE(Succeeds(writer->Sync()));
    ASSERT_TRUE(Succeeds(writer->Commit()));
    std::map<std::string, std::string> want = FilesOf(in_);
    want.erase("modeling_custom.py");
    EXPECT_EQ(FilesOf(folder / "out"), want);
    std::vector<std::string> names;
    for (const auto& [name, bytes] : want) names.push_back(name);
    EXPECT_EQ(writer->files(), names);
    EXPECT_EQ(*(*CheckpointReader::Open(folder / "out"))->Digest(), *(*reader)->Digest());
    EXPECT_EQ(*source_->Digest(), *(*reader)->Digest());
    fs::remove_all(in_);
  }
}

TEST_F(CheckpointWriterTest, HeaderThatIsNotPaddedIsKept) {
  Open({});
  // A header whose length is no multiple of 8 and that ends in a newline.
  const SafetensorsHeader& header = source_->shards()[0].header;
  const std::string bytes = ReadText(in_ + "/model.safetensors");
  const std::string json = header.raw_json.substr(0, header.raw_json.rfind('}') + 1) + " \n\n";
  WriteText(in_ + "/model.safetensors", FrameSafetensorsHeader(json) + bytes.substr(static_cast<size_t>(header.data_begin)));
  Reopen();
  WriteCopy(out_, {}, 1);
  EXPECT_EQ(ReadText(out_ + "/model.safetensors"), ReadText(in_ + "/model.safetensors"));
}

TEST_F(CheckpointWriterTest, OnlyEditedTensorsChange) {
  for (const int shards : {1, 3}) {
    const TempFolder folder;
    Open({.family = "qwen2", .shards = shards});
    const TensorBytes edits = {{kDown, Edited(kDown)}, {"model.norm.weight", Edited("model.norm.weight")}};
    WriteCopy(folder / "out", edits, 1);
    TensorBytes want = tensors_;
    for (const auto& [name, bytes] : edits) want[name] = bytes;
    EXPECT_EQ(ReadAll(folder / "out"), want);
    fs::remove_all(in_);
  }
}

// Large parts go past the page cache, small ones and the edges of pages through it; the bytes are the same.
TEST_F(CheckpointWriterTest, PartsOfAnyOffsetAndSizeLandInPlace) {
  const std::string path = folder_ / "large";
  constexpr int64_t kSize = 5'000'003;
  {
    const auto file = CreateNewFile(path);
    ASSERT_TRUE(Succeeds(file));
    ASSERT_TRUE(Succeeds(ReserveSize(*file, kSize, path)));
  }
  auto file = DirectFile::Open(path);
  ASSERT_TRUE(Succeeds(file));
  std::string want(kSize, '\0');
  for (size_t i = 0; i < want.size(); ++i) want[i] = static_cast<char>(i * 31 + i / 4096);
  for (int64_t at = 0, size = 1; at < kSize; at += size, size = size * 3 % 1'200'007 + 1) {
    size = std::min(size, kSize - at);
    const DirectBuffer buffer(size, at);
    std::copy_n(want.begin() + at, size, buffer.data());
    ASSERT_TRUE(Succeeds((*file)->Write(at, buffer.bytes())));
  }
  ASSERT_TRUE(Succeeds((*file)->Sync()));
  EXPECT_EQ(ReadText(path), want);
}

TEST_F(CheckpointWriterTest, AnyNumberOfRanksGivesTheSameBytes) {
  for (const TinyModel& model : {TinyModel{.family = "qwen2", .shards = 3}, TinyModel{.tied = true, .shards = 1},
                                 TinyModel{.tied = true, .shards = 2}}) {
    const TempFolder folder;
    Open(model);
    const TensorBytes edits = {{kDown, Edited(kDown)}, {kEmbedding, Edited(kEmbedding)}};
    for (const int ranks : {1, 2, 3, 7}) WriteCopy(folder / std::to_string(ranks), edits, ranks);
    const auto want = FilesOf(folder / "1");
    for (const int ranks : {2, 3, 7}) EXPECT_EQ(FilesOf(folder / std::to_string(ranks)), want) << ranks;
    fs::remove_all(in_);
  }
}

TEST_F(CheckpointWriterTest, UntiesASingleFile) {
  Open({.tied = true});
  WriteCopy(out_, {{kEmbedding, Edited(kEmbedding)}}, 2);
  TensorBytes want = tensors_;
  want["lm_head.weight"] = tensors_.at(kEmbedding);
  want[kEmbedding] = Edited(kEmbedding);
  EXPECT_EQ(ReadAll(out_), want);
  const auto reader = CheckpointReader::Open(out_);
  ASSERT_TRUE(Succeeds(reader));
  EXPECT_FALSE((*reader)->config().tied_embeddings);
  EXPECT_FALSE(fs::exists(out_ + "/" + kIndex));
  const SafetensorsHeader& header = (*reader)->shards()[0].header;
  EXPECT_EQ(header.data_begin % 8, 0);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.entries.back().name, "lm_head.weight");
  const auto& before = source_->shards()[0].header.entries;
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(header.entries[i].name, before[i].name);
}

TEST_F(CheckpointWriterTest, UntieChangesOneKeyOfTheConfig) {
  Open({.tied = true});
  WriteCopy(out_, {}, 1);
  ordered_json want = ordered_json::parse(ReadText(in_ + "/config.json"));
  want["tie_word_embeddings"] = false;
  EXPECT_EQ(ReadText(out_ + "/config.json"), want.dump(2) + "\n");
}

TEST_F(CheckpointWriterTest, UntieAddsAShard) {
  Open({.tied = true, .shards = 3});
  WriteCopy(out_, {{kEmbedding, Edited(kEmbedding)}}, 2);
  TensorBytes want = tensors_;
  want["lm_head.weight"] = tensors_.at(kEmbedding);
  want[kEmbedding] = Edited(kEmbedding);
  EXPECT_EQ(ReadAll(out_), want);
  const ordered_json before = ordered_json::parse(ReadText(in_ + "/" + kIndex));
  const ordered_json after = ordered_json::parse(ReadText(out_ + "/" + kIndex));
  EXPECT_EQ(after["metadata"]["total_size"].get<int64_t>(), before["metadata"]["total_size"].get<int64_t>() + 11 * 16 * 2);
  const std::string shard = after["weight_map"]["lm_head.weight"];
  EXPECT_TRUE(fs::exists(out_ + "/" + shard));
  for (const auto& [name, file] : before["weight_map"].items()) EXPECT_EQ(after["weight_map"][name], file);
  EXPECT_EQ(ReadText(out_ + "/model-00003-of-00003.safetensors"), ReadText(in_ + "/model-00003-of-00003.safetensors"));
}

TEST_F(CheckpointWriterTest, StaysTiedWhenAsked) {
  Open({.tied = true});
  WriteCopy(out_, {{kEmbedding, Edited(kEmbedding)}}, 1, /*untie=*/false);
  TensorBytes want = tensors_;
  want[kEmbedding] = Edited(kEmbedding);
  EXPECT_EQ(ReadAll(out_), want);
  EXPECT_EQ(ReadText(out_ + "/config.json"), ReadText(in_ + "/config.json"));
}

// A tied model that stores its unembedding too: what it stores is never read, so the embedding's bytes count.
TEST_F(CheckpointWriterTest, UntieReplacesAStoredUnembedding) {
  tensors_ = WriteTinyCheckpoint(in_, {.tied = false});
  WriteText(in_ + "/config.json", bearing::testing::TinyConfig({.tied = true}));
  tied_ = true;
  Reopen();
  WriteCopy(out_, {{kEmbedding, Edited(kEmbedding)}}, 3);
  TensorBytes want = tensors_;
  want["lm_head.weight"] = tensors_.at(kEmbedding);
  want[kEmbedding] = Edited(kEmbedding);
  EXPECT_EQ(ReadAll(out_), want);
}

TEST_F(CheckpointWriterTest, EditOfAnEditIsTheEdit) {
  Open({.tied = true, .shards = 2});
  const TensorBytes edits = {{kDown, Edited(kDown)}};
  WriteCopy(out_, edits, 1);
  auto again = WeightFiles::Open(out_);
  ASSERT_TRUE(Succeeds(again));
  source_ = *std::move(again);
  tied_ = false;
  WriteCopy(folder_ / "twice", edits, 1);
  EXPECT_EQ(FilesOf(folder_ / "twice"), FilesOf(out_));
}

TEST_F(CheckpointWriterTest, TemplatesInTheirFolderAreCopiedAndLinksBecomeFiles) {
  WriteTinyCheckpoint(in_, {});
  fs::create_directories(in_ + "/additional_chat_templates");
  WriteText(in_ + "/additional_chat_templates/tool.jinja", "{{ a }}");
  WriteText(in_ + "/additional_chat_templates/notes.txt", "no");
  WriteText(folder_ / "elsewhere", "{{ b }}");
  fs::create_symlink(folder_ / "elsewhere", in_ + "/chat_template.jinja");
  Reopen();
  WriteCopy(out_, {}, 1);
  EXPECT_EQ(ReadText(out_ + "/additional_chat_templates/tool.jinja"), "{{ a }}");
  EXPECT_FALSE(fs::exists(out_ + "/additional_chat_templates/notes.txt"));
  EXPECT_EQ(ReadText(out_ + "/chat_template.jinja"), "{{ b }}");
  EXPECT_FALSE(fs::is_symlink(out_ + "/chat_template.jinja"));
}

TEST_F(CheckpointWriterTest, WithoutCommitThereIsNoOutputAndTheNextRunStartsOver) {
  Open({});
  {
    const auto writer = Create(out_);
    ASSERT_TRUE(Succeeds(writer->Prepare()));
    WriteShare(*writer, *plans_.back(), {}, 0, 2);
    WriteText(out_ + ".partial/left-over", "x");
  }
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_TRUE(fs::exists(out_ + ".partial"));
  WriteCopy(out_, {}, 1);
  EXPECT_FALSE(fs::exists(out_ + "/left-over"));
  EXPECT_EQ(ReadAll(out_), tensors_);
}

TEST_F(CheckpointWriterTest, TheSameIdentityKeepsWeightsAndNotesAndMakesTheRestAnew) {
  Open({.shards = 2});
  const std::string shard = out_ + ".partial/" + source_->shards()[0].file_name;
  const auto prepare = [&](const std::string& identity) {
    const auto kept = Create(out_)->Prepare({}, identity);
    EXPECT_TRUE(Succeeds(kept));
    return kept.ok() && *kept;
  };
  const auto mark = [&] {
    WriteText(shard, std::string(static_cast<size_t>(source_->shards()[0].file_size), 'm'));
    WriteText(Create(out_)->KeptNotePath("parts"), "1");
    WriteText(out_ + ".partial/config.json", "half of a conf");
    WriteText(out_ + ".partial/manifest.json", "begun");
  };
  EXPECT_FALSE(prepare("a"));
  mark();
  EXPECT_TRUE(prepare("a"));
  EXPECT_EQ(ReadText(shard).substr(0, 2), "mm");
  EXPECT_EQ(Create(out_)->KeptNotes()->size(), 1u);
  EXPECT_EQ(ReadText(out_ + ".partial/config.json"), ReadText(in_ + "/config.json"));
  EXPECT_FALSE(fs::exists(out_ + ".partial/manifest.json"));
  // Anything else starts over: other bytes, a folder that was not made ready to its end, a file that is gone or short.
  EXPECT_FALSE(prepare("b"));
  EXPECT_NE(ReadText(shard).substr(0, 2), "mm");
  EXPECT_TRUE(Create(out_)->KeptNotes()->empty());
  EXPECT_TRUE(prepare("b"));
  fs::resize_file(shard, 10);
  EXPECT_FALSE(prepare("b"));
  fs::remove(shard);
  EXPECT_FALSE(prepare("b"));
  fs::remove(out_ + ".partial/.identity");
  EXPECT_FALSE(prepare("b"));
  EXPECT_FALSE(prepare(""));
  EXPECT_FALSE(prepare(""));
  WriteCopy(out_, {}, 1);
  EXPECT_EQ(ReadAll(out_), tensors_);
}

TEST_F(CheckpointWriterTest, TwoRunsDoNotWriteToOneFolder) {
  Open({});
  const auto first = Create(out_);
  ASSERT_TRUE(Succeeds(first->Prepare({}, "a")));
  EXPECT_TRUE(Fails(Create(out_)->Prepare({}, "a"), absl::StatusCode::kAlreadyExists, "another run", "out.partial"));
  EXPECT_TRUE(Fails(Create(out_)->Prepare({}, "b"), absl::StatusCode::kAlreadyExists, "another run", "out.partial"));
  WriteShare(*first, *plans_.back(), {}, 0, 1);
  ASSERT_TRUE(Succeeds(first->Commit()));
  EXPECT_EQ(ReadAll(out_), tensors_);
}

TEST_F(CheckpointWriterTest, ReplacesAModelInOneStepWhenAsked) {
  Open({});
  WriteCopy(out_, {{kDown, Edited(kDown)}}, 1);
  const auto create = [&] { return CheckpointWriter::Create(source_.get(), plans_.back().get(), out_, Existing::kReplace); };
  auto writer = create();
  ASSERT_TRUE(Succeeds(writer));
  ASSERT_TRUE(Succeeds((*writer)->Prepare()));
  WriteShare(**writer, *plans_.back(), {}, 0, 1);
  EXPECT_EQ(ReadAll(out_)[kDown], Edited(kDown)) << "replaced too early";
  ASSERT_TRUE(Succeeds((*writer)->Commit()));
  EXPECT_EQ(ReadAll(out_), tensors_);
  EXPECT_FALSE(fs::exists(out_ + ".partial"));
  // Not what is no model, and not the source.
  fs::remove(out_ + "/config.json");
  EXPECT_TRUE(Fails(create(), absl::StatusCode::kAlreadyExists, "no model", out_));
  EXPECT_TRUE(Fails(CheckpointWriter::Create(source_.get(), plans_.back().get(), in_, Existing::kReplace),
                    absl::StatusCode::kInvalidArgument, in_));
}

TEST_F(CheckpointWriterTest, ExistingOutputIsNeverTouched) {
  Open({});
  const auto writer = Create(out_);
  ASSERT_TRUE(Succeeds(writer->Prepare()));
  WriteShare(*writer, *plans_.back(), {}, 0, 1);
  fs::create_directories(out_);
  EXPECT_TRUE(Fails(writer->Commit(), absl::StatusCode::kAlreadyExists, out_));
  EXPECT_TRUE(fs::is_empty(out_));
  EXPECT_TRUE(Fails(writer->Prepare(), absl::StatusCode::kAlreadyExists, out_));
  EXPECT_TRUE(
      Fails(CheckpointWriter::Create(source_.get(), plans_.back().get(), out_), absl::StatusCode::kAlreadyExists, out_));
  EXPECT_TRUE(
      Fails(CheckpointWriter::Create(source_.get(), plans_.back().get(), out_ + "/"), absl::StatusCode::kAlreadyExists, out_));
  EXPECT_TRUE(Fails(CheckpointWriter::Create(source_.get(), plans_.back().get(), ""), absl::StatusCode::kInvalidArgument));
}

TEST_F(CheckpointWriterTest, WrongCallsAreNamed) {
  Open({});
  const auto writer = Create(out_);
  EXPECT_TRUE(Fails(writer->WritePart(0, 0, std::string(20, 'x')), absl::StatusCode::kNotFound, "out.partial"));
  EXPECT_TRUE(Fails(writer->Commit(), absl::StatusCode::kNotFound, "out.partial"));
  ASSERT_TRUE(Succeeds(writer->Prepare()));
  EXPECT_TRUE(Fails(writer->WritePart(1, 0, "x"), absl::StatusCode::kInvalidArgument, "file=1"));
  EXPECT_TRUE(Fails(writer->WritePart(0, -1, "x"), absl::StatusCode::kInvalidArgument, "offset=-1"));
  EXPECT_TRUE(Fails(writer->WritePart(0, plans_.back()->files[0].size, "x"), absl::StatusCode::kInvalidArgument));
}

TEST_F(CheckpointWriterTest, DamagedStagedFileIsNotCommitted) {
  Open({});
  const auto writer = Create(out_);
  ASSERT_TRUE(Succeeds(writer->Prepare()));
  fs::resize_file(out_ + ".partial/model.safetensors", 1000);
  EXPECT_TRUE(Fails(writer->Commit(), absl::StatusCode::kDataLoss, "model.safetensors"));
  EXPECT_FALSE(fs::exists(out_));
}

}  // namespace
}  // namespace bearing::sharding
