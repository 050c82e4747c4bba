#include "worker/edit/buffer_pool.h"

#include <algorithm>
#include <new>
#include <utility>

namespace bearing::edit {

using sharding::DirectBuffer;

namespace {

// What a buffer of this size will take.
int64_t RoomFor(int64_t size) {
  constexpr int64_t kLargestUnit = 2 << 20;
  return (size + sharding::kDirectAlignment + kLargestUnit - 1) / kLargestUnit * kLargestUnit;
}

}  // namespace

DirectBuffer BufferPool::FindKept(int64_t size, int64_t file_offset) {
  // The smallest that is large enough, unless it is far too large.
  const int64_t needed = size + file_offset % sharding::kDirectAlignment;  // As Reuse.
  auto best = kept_.end();
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    const bool fits = it->capacity() >= needed && it->capacity() <= 2 * RoomFor(size);
    if (fits && (best == kept_.end() || it->capacity() < best->capacity())) best = it;
  }
  if (best == kept_.end()) return DirectBuffer();
  DirectBuffer found = std::move(*best);
  kept_.erase(best);
  kept_bytes_ -= found.capacity();
  found.Reuse(size, file_offset);
  return found;
}

DirectBuffer BufferPool::Take(int64_t size, int64_t file_offset) {
  const int64_t room = RoomFor(size);
  std::vector<DirectBuffer> dropped;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return in_hand_ == 0 || in_hand_ + room <= limit_; });
    DirectBuffer kept = FindKept(size, file_offset);
    if (kept.data() != nullptr && (in_hand_ == 0 || in_hand_ + kept.capacity() <= limit_)) {
      in_hand_ += kept.capacity();
      most_in_hand_ = std::max(most_in_hand_, in_hand_);
      return kept;
    }
    if (kept.data() != nullptr) dropped.push_back(std::move(kept));
    in_hand_ += room;
    most_in_hand_ = std::max(most_in_hand_, in_hand_);
    // What is kept never makes the process larger than what was in hand at once.
    while (!kept_.empty() && in_hand_ + kept_bytes_ > most_in_hand_) {
      kept_bytes_ -= kept_.front().capacity();  // The one that has waited longest.
      dropped.push_back(std::move(kept_.front()));
      kept_.erase(kept_.begin());
    }
  }
  dropped.clear();
  try {
    DirectBuffer made(size, file_offset);
    const std::lock_guard<std::mutex> lock(mutex_);
    in_hand_ += made.capacity() - room;
    return made;
  } catch (const std::bad_alloc&) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      in_hand_ -= room;
    }
    changed_.notify_all();
    throw;
  }
}

void BufferPool::Give(DirectBuffer buffer) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    in_hand_ -= buffer.capacity();
    kept_bytes_ += buffer.capacity();
    kept_.push_back(std::move(buffer));
  }
  changed_.notify_all();
}

}  // namespace bearing::edit
