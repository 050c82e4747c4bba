// What the tests of other processes drive: one operation of storage/ a run. Errors go to standard error as one line.
//
//   store_tool publish FOLDER ADDRESS [overwrite]
//   store_tool verify ADDRESS                        hashes every file of a published set
//   store_tool weights MODEL                         sha256 over every tensor's bytes, as the checkpoint reader reads them
//   store_tool upload FILE ADDRESS                   one object, and the seconds it took
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/model_source.h"
#include "storage/publisher.h"

namespace bearing::storage {
namespace {

// Small parts make many requests: more places for a fault.
bridge::BucketOptions Options() {
  bridge::BucketOptions options;
  if (const char* retries = std::getenv("STORE_TOOL_RETRIES"); retries != nullptr) options.max_retries = std::atoi(retries);
  if (const char* bytes = std::getenv("STORE_TOOL_PART_BYTES"); bytes != nullptr) options.part_bytes = std::atoll(bytes);
  if (const char* bytes = std::getenv("STORE_TOOL_COPY_BYTES"); bytes != nullptr) options.copy_bytes = std::atoll(bytes);
  return options;
}

absl::Status Publish(const std::string& folder, const std::string& address, bool overwrite) {
  BEARING_ASSIGN_OR_RETURN(const Location place, OpenLocation(address, Options()));
  return PublishFolder(folder, place, {.overwrite = overwrite, .parallel_files = 2}, nlohmann::json::object());
}

absl::Status Verify(const std::string& address) {
  BEARING_ASSIGN_OR_RETURN(const Location place, OpenLocation(address, Options()));
  BEARING_ASSIGN_OR_RETURN(const std::vector<PublishedFile> files, VerifyPublished(place));
  for (const PublishedFile& file : files) std::printf("%s  %s\n", file.sha256.c_str(), file.name.c_str());
  return absl::OkStatus();
}

absl::Status Weights(const std::string& model) {
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source, ModelSource::Open(model));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<sharding::CheckpointReader> reader, source->OpenCheckpoint());
  sharding::Sha256 sha;
  for (const sharding::CheckpointReader::Shard& shard : reader->shards()) {
    for (const sharding::SafetensorsEntry& entry : shard.header.entries) {
      std::string bytes(static_cast<size_t>(entry.num_bytes), '\0');
      BEARING_RETURN_IF_ERROR(reader->Read(entry.name, absl::MakeSpan(bytes)));
      sha.Update(bytes);
      // Rows and columns are read in other ways than whole tensors.
      for (int axis = 0; entry.shape.size() == 2 && axis < 2; ++axis) {
        const sharding::Range part{entry.shape[axis] / 3, entry.shape[axis] / 2};
        std::string slice(static_cast<size_t>(entry.num_bytes / entry.shape[axis] * part.size()), '\0');
        BEARING_RETURN_IF_ERROR(reader->ReadSlice(entry.name, axis, part, absl::MakeSpan(slice)));
        sha.Update(slice);
      }
    }
  }
  BEARING_ASSIGN_OR_RETURN(const std::string weights, sha.Finish());
  BEARING_ASSIGN_OR_RETURN(const std::string digest, reader->Digest());
  std::printf("weights %s\ndigest %s\n", weights.c_str(), digest.c_str());
  return absl::OkStatus();
}

absl::Status Upload(const std::string& path, const std::string& address) {
  BEARING_ASSIGN_OR_RETURN(const Location place, OpenLocation(address, Options()));
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(file, path));
  const auto start = std::chrono::steady_clock::now();
  BEARING_ASSIGN_OR_RETURN(Publisher publisher, Publisher::Create(place, "upload", {}));
  BEARING_ASSIGN_OR_RETURN(const PublishedFile staged, publisher.StageLocalFile("file", path));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%lld bytes %.3f s %s\n", static_cast<long long>(size), took.count(), staged.sha256.c_str());
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& arguments) {
  const std::string command = arguments.empty() ? "" : arguments[0];
  if (command == "publish" && arguments.size() >= 3) return Publish(arguments[1], arguments[2], arguments.size() > 3);
  if (command == "verify" && arguments.size() == 2) return Verify(arguments[1]);
  if (command == "weights" && arguments.size() == 2) return Weights(arguments[1]);
  if (command == "upload" && arguments.size() == 3) return Upload(arguments[1], arguments[2]);
  return absl::InvalidArgumentError("see the head of store_tool.cc");
}

}  // namespace
}  // namespace bearing::storage

int main(int argc, char** argv) {
  const absl::Status status = bearing::storage::Run({argv + 1, argv + argc});
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
