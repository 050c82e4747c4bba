#include "worker/edit/stream_file.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <future>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "sharding/status_macros.h"
#include "worker/edit/write_parts.h"

namespace bearing::edit {
namespace {

// Parts are begun in their order, and only while memory allows: so the one that is wanted next is always made or in the making,
// and who takes it frees the memory that the others wait for.
class PartsAhead {
 public:
  PartsAhead(const sharding::WeightFiles& source, const EditPlan& plan, const std::vector<Part>& parts, PartRange range,
             TensorEditor& editor, const StreamOptions& options)
      : source_(source), plan_(plan), parts_(parts), end_(range.end), editor_(editor), options_(options), next_(range.begin) {
    const size_t count = std::min<size_t>(static_cast<size_t>(std::max(options.threads, 1)), range.end - range.begin);
    for (size_t i = 0; i < count; ++i) threads_.emplace_back([this] { Work(); });
  }

  ~PartsAhead() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // The bytes of the part, which are asked for in order.
  absl::StatusOr<std::string> Take(size_t index) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !status_.ok() || made_.contains(index); });
    if (!status_.ok()) return status_;
    return std::move(made_.extract(index).mapped());
  }

  // After its bytes are no longer held.
  void Free(int64_t num_bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ -= num_bytes;
    }
    changed_.notify_all();
  }

 private:
  std::optional<size_t> Begin() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] {
      return stop_ || next_ == end_ || used_ == 0 || used_ + parts_[next_].num_bytes <= options_.memory_bytes;
    });
    if (stop_ || next_ == end_) return std::nullopt;
    used_ += parts_[next_].num_bytes;
    return next_++;
  }

  absl::StatusOr<std::string> Make(const Part& part) {
    try {
      std::string bytes(static_cast<size_t>(part.num_bytes), '\0');
      BEARING_RETURN_IF_ERROR(MakePart(source_, plan_, part, editor_, absl::MakeSpan(bytes)));
      return bytes;
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("out of memory");
    } catch (const std::exception& error) {
      return absl::InternalError(error.what());
    }
  }

  void Work() {
    while (const std::optional<size_t> index = Begin()) {
      absl::StatusOr<std::string> made = Make(parts_[*index]);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (made.ok()) {
          made_.emplace(*index, *std::move(made));
        } else {
          stop_ = true;
          if (status_.ok()) status_ = made.status();
        }
      }
      changed_.notify_all();
    }
  }

  const sharding::WeightFiles& source_;
  const EditPlan& plan_;
  const std::vector<Part>& parts_;
  const size_t end_;
  TensorEditor& editor_;
  const StreamOptions& options_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  size_t next_;
  int64_t used_ = 0;
  std::map<size_t, std::string> made_;
  absl::Status status_;
  bool stop_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace

absl::Status StreamFile(const sharding::WeightFiles& source, const EditPlan& plan, const std::vector<Part>& parts,
                        PartRange range, TensorEditor& editor, const ByteSink& sink, const StreamOptions& options) {
  PartsAhead ahead(source, plan, parts, range, editor, options);
  int64_t done = 0;
  for (size_t i = range.begin; i < range.end; ++i) {
    {
      BEARING_ASSIGN_OR_RETURN(const std::string bytes, ahead.Take(i));
      std::future<absl::Status> metered;
      if (options.meter != nullptr) {
        metered = std::async(std::launch::async, [&] { return options.meter->Add(bytes); });
      }
      const absl::Status taken = sink(bytes);
      if (metered.valid()) BEARING_RETURN_IF_ERROR(metered.get());
      BEARING_RETURN_IF_ERROR(taken);
    }
    ahead.Free(parts[i].num_bytes);
    done += parts[i].num_bytes;
    if (options.progress) BEARING_RETURN_IF_ERROR(options.progress(done));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> MakeTensor(const sharding::WeightFiles& source, const EditPlan& plan, size_t tensor,
                                       TensorEditor& editor) {
  const sharding::OutputTensor& wanted = plan.copy.tensors[tensor];
  std::string bytes(static_cast<size_t>(wanted.num_bytes), '\0');
  const auto edit = plan.edits.find(tensor);
  if (edit == plan.edits.end()) {
    BEARING_RETURN_IF_ERROR(source.Read(wanted.source->shard, wanted.source->offset, absl::MakeSpan(bytes)));
    return bytes;
  }
  for (const ByteRange& range : PiecesOf(edit->second, wanted.num_bytes)) {
    const absl::Span<char> piece(bytes.data() + range.begin, static_cast<size_t>(range.end - range.begin));
    BEARING_RETURN_IF_ERROR(editor.Make(edit->second, range.begin, piece));
  }
  return bytes;
}

PartRange PartsOfFile(const std::vector<Part>& parts, size_t file) {
  const auto before = [](const Part& part, size_t wanted) { return part.file < wanted; };
  const auto begin = std::lower_bound(parts.begin(), parts.end(), file, before);
  const auto end = std::lower_bound(begin, parts.end(), file + 1, before);
  return {static_cast<size_t>(begin - parts.begin()), static_cast<size_t>(end - parts.begin())};
}

}  // namespace bearing::edit
