#include "worker/edit/rank_group.h"

#include <chrono>
#include <exception>
#include <future>
#include <new>

namespace bearing::edit {
namespace {

constexpr std::chrono::seconds kRound{20};

}  // namespace

absl::Status WorkTogether(const RankGroup& group, const std::function<absl::Status(const std::atomic<bool>& stop)>& work) {
  std::atomic<bool> stop = false;
  const auto guarded = [&]() -> absl::Status {
    try {
      return work(stop);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("out of memory");
    } catch (const std::exception& error) {
      return absl::InternalError(error.what());
    }
  };
  if (group.ranks == 1) return group.agree(guarded());
  std::future<absl::Status> running = std::async(std::launch::async, guarded);
  absl::Status mine;
  bool done = false;
  for (;;) {
    if (!done && running.wait_for(kRound) == std::future_status::ready) {
      mine = running.get();
      done = true;
    }
    const absl::Status failed = group.agree(mine);
    if (!failed.ok()) {
      stop = true;
      if (!done) running.wait();
      return failed;
    }
    if (group.agree(done ? absl::OkStatus() : absl::UnavailableError("still at work")).ok()) return absl::OkStatus();
  }
}

}  // namespace bearing::edit
