#include "worker/edit/write_parts.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "sharding/concat.h"
#include "sharding/direct_file.h"
#include "sharding/status_macros.h"
#include "worker/edit/buffer_pool.h"

namespace bearing::edit {
namespace {

constexpr uint64_t kChecksumFactor = 0x9e3779b97f4a7c15;

// Reads what is copied; files of this machine by blocks that are still in the processor's cache when they are summed.
absl::Status ReadAndSum(const sharding::WeightFiles& source, const sharding::OutputTensor::Source& from, absl::Span<char> out,
                        Checksum* checksum) {
  constexpr size_t kBlock = 512 << 10;
  if (checksum == nullptr) return source.Read(from.shard, from.offset, out);
  const size_t step = source.file(from.shard).descriptor() != nullptr ? kBlock : out.size();
  for (size_t at = 0; at < out.size(); at += step) {
    const absl::Span<char> block = out.subspan(at, step);
    BEARING_RETURN_IF_ERROR(source.Read(from.shard, from.offset + static_cast<int64_t>(at), block));
    checksum->Update(block);
  }
  return absl::OkStatus();
}

// MakePart, and the sum of its bytes unless `checksum` is nullptr.
absl::Status MakeAndSum(const sharding::WeightFiles& source, const EditPlan& plan, const Part& part, TensorEditor& editor,
                        absl::Span<char> out, Checksum* checksum) {
  for (const Piece& piece : part.pieces) {
    const absl::Span<char> bytes = out.subspan(0, static_cast<size_t>(piece.end - piece.begin));
    out.remove_prefix(bytes.size());
    if (piece.tensor < 0) {
      std::memcpy(bytes.data(), plan.copy.files[part.file].framed_header.data(), bytes.size());
      if (checksum != nullptr) checksum->Update(bytes);
      continue;
    }
    const auto index = static_cast<size_t>(piece.tensor);
    const sharding::OutputTensor& tensor = plan.copy.tensors[index];
    const auto edit = plan.edits.find(index);
    absl::Status made;
    if (edit != plan.edits.end()) {
      made = editor.Make(edit->second, piece.begin, bytes);
      if (made.ok() && checksum != nullptr) checksum->Update(bytes);
    } else {
      made = ReadAndSum(source, {tensor.source->shard, tensor.source->offset + piece.begin}, bytes, checksum);
    }
    if (!made.ok()) return absl::Status(made.code(), Concat(made.message(), " tensor=", tensor.name));
  }
  return absl::OkStatus();
}

class PartWriter {
 public:
  PartWriter(const sharding::WeightFiles& source, const EditPlan& plan, const std::vector<Part>& parts, PartRange range,
             TensorEditor& editor, const PartSink& sink, const WriteOptions& options)
      : source_(source),
        plan_(plan),
        parts_(parts),
        range_(range),
        editor_(editor),
        sink_(sink),
        options_(options),
        buffers_(options.memory_bytes),
        next_(range.begin),
        checksums_(range.end - range.begin) {}

  absl::StatusOr<std::vector<uint64_t>> Run();

 private:
  void Work();
  absl::StatusOr<uint64_t> WritePart(size_t index, absl::Span<char> bytes);
  absl::Status CountDone(size_t index);

  const sharding::WeightFiles& source_;
  const EditPlan& plan_;
  const std::vector<Part>& parts_;
  const PartRange range_;
  TensorEditor& editor_;
  const PartSink& sink_;
  const WriteOptions& options_;
  BufferPool buffers_;
  std::atomic<size_t> next_;
  std::vector<uint64_t> checksums_;
  std::mutex mutex_;  // Guards the two below.
  absl::Status status_;
  int64_t done_bytes_ = 0;
  std::atomic<bool> stop_ = false;
};

// Its checksum.
absl::StatusOr<uint64_t> PartWriter::WritePart(size_t index, absl::Span<char> bytes) {
  if (options_.keep) {
    if (const std::optional<uint64_t> kept = options_.keep(index, bytes)) return *kept;
  }
  Checksum checksum;
  BEARING_RETURN_IF_ERROR(MakeAndSum(source_, plan_, parts_[index], editor_, bytes, &checksum));
  const uint64_t sum = checksum.Finish();
  BEARING_RETURN_IF_ERROR(sink_(index, bytes, sum));
  return sum;
}

absl::Status PartWriter::CountDone(size_t index) {
  const std::lock_guard<std::mutex> lock(mutex_);
  done_bytes_ += parts_[index].num_bytes;
  return options_.progress ? options_.progress(done_bytes_) : absl::OkStatus();
}

void PartWriter::Work() {
  for (size_t index = next_++; index < range_.end && !stop_; index = next_++) {
    const Part& part = parts_[index];
    absl::Status status;
    sharding::DirectBuffer buffer;
    try {
      buffer = buffers_.Take(part.num_bytes, part.offset);
      const absl::StatusOr<uint64_t> checksum = WritePart(index, buffer.bytes());
      status = checksum.status();
      if (status.ok()) {
        checksums_[index - range_.begin] = *checksum;
        status = CountDone(index);
      }
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError("out of memory");
    } catch (const std::exception& error) {
      status = absl::InternalError(error.what());
    }
    if (buffer.data() != nullptr) buffers_.Give(std::move(buffer));
    if (status.ok()) continue;
    stop_ = true;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_.ok()) status_ = status;
  }
}

absl::StatusOr<std::vector<uint64_t>> PartWriter::Run() {
  std::vector<std::thread> threads;
  const auto count =
      static_cast<int>(std::min<size_t>(static_cast<size_t>(std::max(options_.threads, 1)), range_.end - range_.begin));
  for (int i = 1; i < count; ++i) threads.emplace_back([this] { Work(); });
  Work();
  for (std::thread& thread : threads) thread.join();
  if (!status_.ok()) return status_;
  return std::move(checksums_);
}

}  // namespace

// Four chains of multiply and xor over 64-bit words: every word and its place count.
void Checksum::AddBlocks(const char* blocks, size_t count) {
  std::array<uint64_t, 4> chains = chains_;  // In registers.
  for (; count > 0; --count, blocks += kBlockBytes) {
    std::array<uint64_t, 4> words;
    std::memcpy(words.data(), blocks, sizeof(words));
    for (size_t i = 0; i < 4; ++i) chains[i] = (chains[i] ^ words[i]) * kChecksumFactor;
  }
  chains_ = chains;
}

void Checksum::Update(absl::Span<const char> bytes) {
  size_ += bytes.size();
  if (rest_size_ > 0) {
    const size_t take = std::min(rest_.size() - rest_size_, bytes.size());
    std::memcpy(rest_.data() + rest_size_, bytes.data(), take);
    rest_size_ += take;
    bytes.remove_prefix(take);
    if (rest_size_ < rest_.size()) return;
    AddBlocks(rest_.data(), 1);
    rest_size_ = 0;
  }
  const size_t blocks = bytes.size() / kBlockBytes;
  AddBlocks(bytes.data(), blocks);
  bytes.remove_prefix(blocks * kBlockBytes);
  std::memcpy(rest_.data(), bytes.data(), bytes.size());
  rest_size_ = bytes.size();
}

uint64_t Checksum::Finish() {
  std::fill(rest_.begin() + static_cast<std::ptrdiff_t>(rest_size_), rest_.end(), '\0');
  AddBlocks(rest_.data(), 1);
  uint64_t sum = size_;
  for (const uint64_t chain : chains_) sum = (sum ^ chain ^ (chain >> 29)) * kChecksumFactor;
  return sum;
}

absl::Status MakePart(const sharding::WeightFiles& source, const EditPlan& plan, const Part& part, TensorEditor& editor,
                      absl::Span<char> out) {
  return MakeAndSum(source, plan, part, editor, out, nullptr);
}

absl::StatusOr<std::vector<uint64_t>> WriteParts(const sharding::WeightFiles& source, const EditPlan& plan,
                                                 const std::vector<Part>& parts, PartRange range, TensorEditor& editor,
                                                 const PartSink& sink, const WriteOptions& options) {
  return PartWriter(source, plan, parts, range, editor, sink, options).Run();
}

}  // namespace bearing::edit
