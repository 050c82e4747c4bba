#include "sharding/safetensors.h"

#include <string>
#include <vector>

#include "sharding/concat.h"
#include "tests/sharding/safetensors_bytes.h"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::sharding {
namespace {

using bearing::testing::Fails;
using bearing::testing::FileOf;
using bearing::testing::LengthField;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::WriteText;

absl::StatusOr<SafetensorsHeader> Parse(const std::string& json, size_t data_bytes) {
  return ParseSafetensorsHeader(json, static_cast<int64_t>(8 + json.size() + data_bytes), "the-file");
}

// ---- Headers that are sound.

struct Accepted {
  const char* what;
  std::string json;
  size_t data_bytes;
  size_t tensors;
};

class SafetensorsTestAccepts : public ::testing::TestWithParam<Accepted> {};

TEST_P(SafetensorsTestAccepts, Header) {
  const auto header = Parse(GetParam().json, GetParam().data_bytes);
  ASSERT_TRUE(Succeeds(header)) << GetParam().what;
  EXPECT_EQ(header->entries.size(), GetParam().tensors);
  EXPECT_EQ(header->raw_json, GetParam().json);
}

INSTANTIATE_TEST_SUITE_P(
    Table, SafetensorsTestAccepts,
    ::testing::Values(
        Accepted{"one tensor", R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24, 1},
        Accepted{"fields in another order", R"({"a":{"data_offsets":[0,4],"shape":[2],"dtype":"BF16"}})", 4, 1},
        Accepted{"spaces after the object", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )", 1, 1},
        Accepted{"newline after the object", "{}\n", 0, 0}, Accepted{"empty object", "{}", 0, 0},
        Accepted{"metadata alone", R"({"__metadata__":{"format":"pt"}})", 0, 0},
        Accepted{"scalar", R"({"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", 8, 1},
        Accepted{"empty name", R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, 1},
        Accepted{"name like a path", R"({"../../etc/passwd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, 1},
        Accepted{
            "tensors without elements share an offset",
            R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[4,0],"data_offsets":[0,0]},)"
            R"("c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4, 3},
        Accepted{
            "data order is not header order",
            R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"b":{"dtype":"I16","shape":[1],"data_offsets":[0,2]}})", 3,
            2}));

// ---- Headers that are not.

struct Refused {
  const char* what;
  std::string json;
  size_t data_bytes;
  std::vector<std::string> named;  // In the message, besides the file.
};

class SafetensorsTestRefuses : public ::testing::TestWithParam<Refused> {};

TEST_P(SafetensorsTestRefuses, Header) {
  const auto header = Parse(GetParam().json, GetParam().data_bytes);
  EXPECT_TRUE(Fails(header, absl::StatusCode::kDataLoss, "file=the-file")) << GetParam().what;
  for (const std::string& part : GetParam().named) {
    EXPECT_TRUE(Fails(header, absl::StatusCode::kDataLoss, part)) << GetParam().what;
  }
}

std::string Tensor(const std::string& body) { return R"({"some.weight":{)" + body + "}}"; }

const char kGood[] = R"("dtype":"U8","shape":[4],"data_offsets":[0,4])";
const char kName[] = "tensor=some.weight";

INSTANTIATE_TEST_SUITE_P(
    Json, SafetensorsTestRefuses,
    ::testing::Values(Refused{"empty header", "", 0, {"'{'"}}, Refused{"space first", " {}", 0, {"'{'"}},
                      Refused{"byte order mark first", "\xEF\xBB\xBF{}", 0, {"'{'"}}, Refused{"array", "[]", 0, {"'{'"}},
                      Refused{"not closed", "{", 0, {"JSON"}}, Refused{"two objects", "{}{}", 0, {"JSON"}},
                      Refused{"zero bytes as padding", std::string("{}\0\0", 4), 0, {"zero byte"}},
                      Refused{"comment", "{/*a*/}", 0, {"JSON"}}, Refused{"comma at the end", "{\"a\":{},}", 0, {}},
                      Refused{"invalid UTF-8", "{\"\xff\":{}}", 0, {"JSON"}},
                      Refused{"lone surrogate", R"({"\ud800":{}})", 0, {"JSON"}},
                      Refused{"deep nesting", "{\"a\":" + std::string(100'000, '['), 0, {"tensor=a"}},
                      Refused{"deep nesting in a shape", "{\"a\":{\"shape\":" + std::string(100'000, '['), 0, {"tensor=a"}},
                      Refused{"same key, same range",
                              R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                              1,
                              {"twice", "tensor=a"}},
                      Refused{"same key, another range",
                              R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                              2,
                              {"twice", "tensor=a"}},
                      Refused{"same key by an escape",
                              R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                              2,
                              {"twice", "tensor=a"}},
                      Refused{"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, {"twice", "__metadata__"}},
                      Refused{"same key in metadata", R"({"__metadata__":{"k":"1","k":"1"}})", 0, {"twice", "key=k"}},
                      Refused{"null metadata", R"({"__metadata__":null})", 0, {"__metadata__"}},
                      Refused{"metadata is a list", R"({"__metadata__":["a"]})", 0, {"__metadata__"}},
                      Refused{"metadata holds a number", R"({"__metadata__":{"k":1}})", 0, {"strings"}},
                      Refused{"metadata holds an object", R"({"__metadata__":{"k":{}}})", 0, {"strings"}},
                      Refused{"tensor is a number", R"({"some.weight":1})", 0, {kName}},
                      Refused{"tensor is null", R"({"some.weight":null})", 0, {kName}}));

INSTANTIATE_TEST_SUITE_P(
    Fields, SafetensorsTestRefuses,
    ::testing::Values(
        Refused{"no dtype", Tensor(R"("shape":[4],"data_offsets":[0,4])"), 4, {kName, "field=dtype"}},
        Refused{"no shape", Tensor(R"("dtype":"U8","data_offsets":[0,4])"), 4, {kName, "field=shape"}},
        Refused{"no offsets", Tensor(R"("dtype":"U8","shape":[4])"), 4, {kName, "field=data_offsets"}},
        Refused{"no field", Tensor(""), 0, {kName}},
        Refused{"unknown field", Tensor(std::string(kGood) + R"(,"device":"cpu")"), 4, {kName, "field=device"}},
        Refused{"dtype twice", Tensor(std::string(kGood) + R"(,"dtype":"U8")"), 4, {kName, "twice", "field=dtype"}},
        Refused{"shape twice", Tensor(std::string(kGood) + R"(,"shape":[4])"), 4, {kName, "twice", "field=shape"}},
        Refused{"offsets twice", Tensor(std::string(kGood) + R"(,"data_offsets":[0,4])"), 4, {kName, "twice"}},
        Refused{"unknown dtype", Tensor(R"("dtype":"F33","shape":[4],"data_offsets":[0,4])"), 4, {kName, "F33"}},
        Refused{"dtype in small letters", Tensor(R"("dtype":"u8","shape":[4],"data_offsets":[0,4])"), 4, {kName, "u8"}},
        Refused{"dtype is a number", Tensor(R"("dtype":8,"shape":[4],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"shape is a number", Tensor(R"("dtype":"U8","shape":4,"data_offsets":[0,4])"), 4, {kName}},
        Refused{"negative shape", Tensor(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"), 4, {kName, "negative"}},
        Refused{"minus zero", Tensor(R"("dtype":"U8","shape":[-0],"data_offsets":[0,0])"), 0, {kName}},
        Refused{"fraction", Tensor(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"exponent", Tensor(R"("dtype":"U8","shape":[4e0],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"number in a string", Tensor(R"("dtype":"U8","shape":["4"],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"leading zero", Tensor(R"("dtype":"U8","shape":[04],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"axis of 64 bits", Tensor(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4])"), 4, {kName}},
        Refused{
            "axis above 64 bits", Tensor(R"("dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,4])"), 4, {kName}},
        Refused{"one offset", Tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0])"), 4, {kName, "data_offsets"}},
        Refused{"three offsets", Tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])"), 4, {kName, "data_offsets"}},
        Refused{"negative offset", Tensor(R"("dtype":"U8","shape":[4],"data_offsets":[-4,0])"), 4, {kName, "negative"}}));

INSTANTIATE_TEST_SUITE_P(
    Ranges, SafetensorsTestRefuses,
    ::testing::Values(Refused{"product overflows",
                              Tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
                              0,
                              {kName, "overflow"}},
                      Refused{"size overflows",
                              Tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"),
                              0,
                              {kName, "overflow"}},
                      Refused{"size does not fit the shape",
                              Tensor(R"("dtype":"U16","shape":[4],"data_offsets":[0,4])"),
                              4,
                              {kName, "want bytes=8"}},
                      Refused{"end before begin", Tensor(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"), 4, {kName}},
                      Refused{
                          "hole at the start", Tensor(R"("dtype":"U8","shape":[4],"data_offsets":[1,5])"), 5, {kName, "hole"}},
                      Refused{"hole between",
                              R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                              3,
                              {"tensor=b", "hole"}},
                      Refused{"overlap",
                              R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                              3,
                              {"tensor=b", "overlap"}},
                      Refused{"same range under two names",
                              R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                              2,
                              {"tensor=b", "overlap"}},
                      Refused{"body too short", Tensor(kGood), 3, {kName, "truncated"}},
                      Refused{"bytes at the end", Tensor(kGood), 5, {"bytes after the last tensor"}},
                      Refused{"bytes without tensors", "{}", 1, {"bytes after the last tensor"}}));

// ---- Single cases.

TEST(SafetensorsTest, EntriesTellWhereTheBytesAre) {
  const std::string json = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
                           R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const auto header = Parse(json, 20);
  ASSERT_TRUE(Succeeds(header));
  const auto data_begin = static_cast<int64_t>(8 + json.size());
  EXPECT_EQ(header->data_begin, data_begin);
  EXPECT_THAT(header->metadata, ::testing::ElementsAre(::testing::Pair("format", "pt")));
  ASSERT_EQ(header->entries.size(), 2u);
  EXPECT_EQ(header->entries[0].name, "a");
  EXPECT_EQ(header->entries[0].file_offset, data_begin);
  EXPECT_EQ(header->entries[1].name, "b");
  EXPECT_EQ(header->entries[1].dtype, DType::kBF16);
  EXPECT_THAT(header->entries[1].shape, ::testing::ElementsAre(2, 3));
  EXPECT_EQ(header->entries[1].file_offset, data_begin + 8);
  EXPECT_EQ(header->entries[1].num_bytes, 12);
}

TEST(SafetensorsTest, KnownButUnsupportedDTypeIsUnimplemented) {
  EXPECT_TRUE(Fails(Parse(Tensor(R"("dtype":"F4","shape":[4],"data_offsets":[0,2])"), 2), absl::StatusCode::kUnimplemented,
                    "file=the-file", kName, "F4"));
}

TEST(SafetensorsTest, NamesAreEscapedInMessages) {
  const auto header = Parse("{\"a\\nb\":1}", 0);
  EXPECT_TRUE(Fails(header, absl::StatusCode::kDataLoss, "tensor=a\\nb"));
}

TEST(SafetensorsTest, LimitsOnNamesAndAxes) {
  const std::string name(5000, 'n');
  EXPECT_TRUE(Fails(Parse("{\"" + name + "\":{}}", 0), absl::StatusCode::kDataLoss, "name is longer"));
  std::string ones = "1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_TRUE(Fails(Parse(Tensor(R"("dtype":"U8","shape":[)" + ones + R"(],"data_offsets":[0,1])"), 1),
                    absl::StatusCode::kDataLoss, "axes", kName));
}

TEST(SafetensorsTest, LimitOnTheNumberOfTensors) {
  std::string json = "{";
  for (int64_t i = 0; i <= kMaxSafetensorsTensors; ++i) {
    json += Concat(i == 0 ? "" : ",", "\"", i, R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  }
  json += "}";
  EXPECT_TRUE(Fails(Parse(json, 0), absl::StatusCode::kDataLoss, "more than 1000000 tensors"));
}

TEST(SafetensorsTest, ReadsAFile) {
  const TempFolder folder;
  WriteText(folder / "a", FileOf(Tensor(kGood), 4));
  const auto header = ReadSafetensorsHeader(folder / "a");
  ASSERT_TRUE(Succeeds(header));
  EXPECT_EQ(header->entries[0].name, "some.weight");
}

TEST(SafetensorsTest, BadFilesAreNamed) {
  const TempFolder folder;
  const std::string path = folder / "a";
  EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kNotFound, path));
  EXPECT_TRUE(Fails(ReadSafetensorsHeader(folder.path()), absl::StatusCode::kInvalidArgument, folder.path()));
  WriteText(path, "");
  EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kDataLoss, path, "too short"));
  WriteText(path, "1234567");
  EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kDataLoss, path, "too short"));
  WriteText(path, FileOf(Tensor(kGood), 3));
  EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kDataLoss, path, kName, "truncated"));
}

TEST(SafetensorsTest, LengthThatLiesCostsNoMemory) {
  const TempFolder folder;
  const std::string path = folder / "a";
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63, ~uint64_t{0}}) {
    WriteText(path, LengthField(length) + "{}");
    EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kDataLoss, path, "too large")) << length;
  }
  for (const uint64_t length : {uint64_t{3}, uint64_t{100'000'000}}) {
    WriteText(path, LengthField(length) + "{}");
    EXPECT_TRUE(Fails(ReadSafetensorsHeader(path), absl::StatusCode::kDataLoss, path, "after the file")) << length;
  }
}

}  // namespace
}  // namespace bearing::sharding
