#include "worker/comm/watchdog.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace bearing::comm {
namespace {

// How long after its limit an operation may go unnoticed.
constexpr std::chrono::milliseconds kDogLook{250};

}  // namespace

std::string Place(int rank, const std::string& stage) {
  return stage.empty() ? absl::StrCat("rank=", rank) : absl::StrCat("rank=", rank, " stage=", stage);
}

std::string Describe(const Operation& operation) {
  std::string text;
  if (operation.group != nullptr && !operation.group->empty()) text = absl::StrCat("group=", *operation.group, " ");
  absl::StrAppend(&text, "operation=", operation.name, " bytes=", operation.bytes);
  return text;
}

std::string Describe(int rank, const std::string& stage, const Operation& operation) {
  return absl::StrCat(Place(rank, stage), " ", Describe(operation));
}

Watchdog::Watchdog(int rank, absl::Duration limit, std::function<void(const std::string&)> expired)
    : rank_(rank), limit_(limit), expired_(std::move(expired)) {
  if (limit_ > absl::ZeroDuration()) thread_ = std::thread([this] { Run(); });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::SetStage(const std::string& stage) {
  std::lock_guard lock(mutex_);
  stage_ = stage;
}

void Watchdog::Begin(const Operation& operation) {
  std::lock_guard lock(mutex_);
  operation_ = operation;
  deadline_ = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(limit_);
}

void Watchdog::End() {
  std::lock_guard lock(mutex_);
  operation_.name = nullptr;
}

std::string Watchdog::Place() const {
  std::lock_guard lock(mutex_);
  return comm::Place(rank_, stage_);
}

std::string Watchdog::Describe(const Operation& operation) const {
  std::lock_guard lock(mutex_);
  return comm::Describe(rank_, stage_, operation);
}

void Watchdog::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, kDogLook);
    if (operation_.name == nullptr || std::chrono::steady_clock::now() <= deadline_) continue;
    const std::string text =
        absl::StrCat(comm::Describe(rank_, stage_, operation_), " did not finish within ", absl::FormatDuration(limit_));
    lock.unlock();
    expired_(text);
    return;
  }
}

}  // namespace bearing::comm
