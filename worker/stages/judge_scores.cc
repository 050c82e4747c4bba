#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "jobs/artifacts.h"
#include "sharding/status_macros.h"
#include "worker/stages/model_judge.h"

namespace bearing::worker {
namespace {

constexpr auto kSize = static_cast<int64_t>(sizeof(JudgeScore));
static_assert(sizeof(JudgeScore) == 2 * sizeof(double));

}  // namespace

absl::StatusOr<JudgeScores> JudgeScores::Open(const std::string& path, const nlohmann::json& identity) {
  const absl::StatusOr<std::string> text = jobs::ReadFile(path + ".json");
  const bool same = text.ok() && nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false) == identity;
  if (!same) {
    // First the scores: they must never stand beside the identity of others.
    std::error_code error;
    std::filesystem::remove(path + ".bin", error);
    BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(path + ".json", identity.dump(1) + "\n"));
  }
  return Reopen(path);
}

absl::StatusOr<JudgeScores> JudgeScores::Reopen(const std::string& path) {
  JudgeScores scores;
  scores.path_ = path + ".bin";
  scores.file_ = sharding::FileDescriptor(open(scores.path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!scores.file_.is_open()) return sharding::ErrnoStatus("cannot open", scores.path_);
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(scores.file_, scores.path_));
  scores.count_ = size / kSize;
  return scores;
}

absl::Status JudgeScores::Truncate(int64_t count) {
  if (ftruncate(file_.get(), count * kSize) != 0) return sharding::ErrnoStatus("cannot shorten", path_);
  count_ = count;
  return absl::OkStatus();
}

absl::Status JudgeScores::Append(const std::vector<JudgeScore>& scores) {
  const absl::Span<const char> bytes(reinterpret_cast<const char*>(scores.data()), scores.size() * sizeof(JudgeScore));
  BEARING_RETURN_IF_ERROR(sharding::WriteAt(file_, count_ * kSize, bytes, path_));
  BEARING_RETURN_IF_ERROR(sharding::SyncFile(file_, path_));
  count_ += static_cast<int64_t>(scores.size());
  return absl::OkStatus();
}

absl::StatusOr<JudgeScore> JudgeScores::Get(int64_t index) const {
  JudgeScore score;
  BEARING_RETURN_IF_ERROR(
      sharding::ReadAt(file_, index * kSize, absl::MakeSpan(reinterpret_cast<char*>(&score), sizeof(score)), path_));
  return score;
}

}  // namespace bearing::worker
