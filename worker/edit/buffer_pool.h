// Memory for the parts that are in hand, within a bound, and used again: new memory costs the kernel as much to clear as the
// bytes cost to read, and in a virtual machine a multiple of that where the host has to find it first.
//
// Thread-safe.
#ifndef BEARING_WORKER_EDIT_BUFFER_POOL_H_
#define BEARING_WORKER_EDIT_BUFFER_POOL_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "sharding/direct_file.h"

namespace bearing::edit {

class BufferPool {
 public:
  // Buffers in hand and kept take at most so many bytes, but that one of any size may always be had.
  explicit BufferPool(int64_t limit) : limit_(limit) {}

  // Waits until there is room. Throws std::bad_alloc; the room is then free again.
  sharding::DirectBuffer Take(int64_t size, int64_t file_offset);
  void Give(sharding::DirectBuffer buffer);

 private:
  // A kept one of a fitting size, if there is one.
  sharding::DirectBuffer FindKept(int64_t size, int64_t file_offset);

  const int64_t limit_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  int64_t in_hand_ = 0;  // Bytes.
  int64_t most_in_hand_ = 0;
  int64_t kept_bytes_ = 0;
  std::vector<sharding::DirectBuffer> kept_;
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_BUFFER_POOL_H_
