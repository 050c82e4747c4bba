// The reader of safetensors headers. The first byte chooses: a whole file follows, or two bytes with the size of the data and
// then the header's JSON, so that mutations need not keep a length in step.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>

#include "sharding/copy_plan.h"
#include "sharding/random_access_file.h"
#include "sharding/rewritten_text.h"
#include "sharding/safetensors.h"
#include "tests/fuzz/require.h"

namespace {

using bearing::sharding::SafetensorsEntry;
using bearing::sharding::SafetensorsHeader;

class BytesFile : public bearing::sharding::RandomAccessFile {
 public:
  explicit BytesFile(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& name() const override { return name_; }
  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::Status ReadAt(int64_t offset, absl::Span<char> out) const override {
    if (offset < 0 || offset > size() || static_cast<int64_t>(out.size()) > size() - offset) {
      return absl::DataLossError("file ends before");
    }
    std::copy_n(bytes_.data() + offset, out.size(), out.data());
    return absl::OkStatus();
  }

 private:
  const std::string name_ = "the-file";
  const std::string bytes_;
};

// Tensors tile the data, each with the bytes that its shape asks for.
void RequireSound(const SafetensorsHeader& header, int64_t file_size) {
  BEARING_REQUIRE(header.data_begin == 8 + static_cast<int64_t>(header.raw_json.size()));
  int64_t end = header.data_begin;
  std::set<std::string> names;
  for (const SafetensorsEntry& entry : header.entries) {
    BEARING_REQUIRE(names.insert(entry.name).second);
    BEARING_REQUIRE(entry.file_offset == end);
    int64_t bytes = DTypeSize(entry.dtype);
    for (const int64_t axis : entry.shape) {
      BEARING_REQUIRE(axis >= 0);
      BEARING_REQUIRE(!__builtin_mul_overflow(bytes, axis, &bytes));
    }
    BEARING_REQUIRE(entry.num_bytes == bytes);
    end += bytes;
  }
  BEARING_REQUIRE(end == file_size);
}

// The header that a copy gets when tensors change says the same.
void RequireSameWhenWritten(const SafetensorsHeader& header) {
  std::vector<bearing::sharding::OutputTensor> tensors;
  int64_t data_bytes = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    tensors.push_back(
        {.name = entry.name, .dtype = entry.dtype, .shape = entry.shape, .num_bytes = entry.num_bytes, .source = {}});
    data_bytes += entry.num_bytes;
  }
  const std::string json = bearing::sharding::HeaderOf(tensors, header.metadata);
  const auto again =
      bearing::sharding::ParseSafetensorsHeader(json, 8 + static_cast<int64_t>(json.size()) + data_bytes, "written");
  BEARING_REQUIRE(again.ok());
  BEARING_REQUIRE(again->metadata == header.metadata);
  BEARING_REQUIRE(again->entries.size() == header.entries.size());
  for (size_t i = 0; i < again->entries.size(); ++i) {
    BEARING_REQUIRE(again->entries[i].name == header.entries[i].name);
    BEARING_REQUIRE(again->entries[i].dtype == header.entries[i].dtype);
    BEARING_REQUIRE(again->entries[i].shape == header.entries[i].shape);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  absl::StatusOr<SafetensorsHeader> header = absl::UnknownError("not read");
  int64_t file_size = 0;
  if (data[0] % 2 == 0) {
    const BytesFile file(rest);
    file_size = file.size();
    header = bearing::sharding::ReadSafetensorsHeader(file);
  } else {
    const std::string json = rest.substr(2);
    file_size = 8 + static_cast<int64_t>(json.size()) + static_cast<uint8_t>(rest[0]) + 256 * static_cast<uint8_t>(rest[1]);
    header = bearing::sharding::ParseSafetensorsHeader(json, file_size, "the-file");
  }
  if (!header.ok()) {
    BEARING_REQUIRE(header.status().code() == absl::StatusCode::kDataLoss ||
                    header.status().code() == absl::StatusCode::kUnimplemented);
    BEARING_REQUIRE(header.status().message().find("the-file") != std::string::npos);
    return 0;
  }
  RequireSound(*header, file_size);
  RequireSameWhenWritten(*header);
  return 0;
}
