#include "worker/edit/buffer_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

namespace bearing::edit {
namespace {

using sharding::DirectBuffer;
using sharding::kDirectAlignment;

constexpr int64_t kMiB = 1 << 20;

TEST(BufferPoolTest, MemoryIsUsedAgainAndPlacedForItsOffset) {
  BufferPool pool(100 * kMiB);
  DirectBuffer first = pool.Take(33 * kMiB, 8);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data()) % kDirectAlignment, 8u);
  const char* const memory = first.data();
  pool.Give(std::move(first));
  DirectBuffer second = pool.Take(32 * kMiB, 100);
  EXPECT_EQ(second.data(), memory - 8 + 100);
  EXPECT_EQ(second.size(), 32 * kMiB);
  // A buffer that is far too large is not bound to a small part.
  pool.Give(std::move(second));
  DirectBuffer small = pool.Take(kMiB, 0);
  EXPECT_LT(small.capacity(), 4 * kMiB);
  pool.Give(std::move(small));
}

TEST(BufferPoolTest, OneOfAnySizeMayBeHad) {
  BufferPool pool(kMiB);
  DirectBuffer large = pool.Take(20 * kMiB, 5);
  std::memset(large.data(), 1, static_cast<size_t>(large.size()));
  pool.Give(std::move(large));
  EXPECT_GE(pool.Take(30 * kMiB, 0).size(), 30 * kMiB);
}

TEST(BufferPoolTest, HoldersOfTooMuchWaitForEachOther) {
  constexpr int64_t kLimit = 40 * kMiB;
  BufferPool pool(kLimit);
  std::atomic<int64_t> held = 0;
  std::atomic<int64_t> most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const int64_t size = (1 + (7 * t + 5 * i) % 12) * kMiB;
        DirectBuffer buffer = pool.Take(size, (i * 512) % kDirectAlignment);
        const int64_t now = held += buffer.size();
        int64_t before = most;
        while (now > before && !most.compare_exchange_weak(before, now)) {
        }
        // Nobody else writes here.
        buffer.data()[0] = buffer.data()[buffer.size() - 1] = static_cast<char>(t);
        std::this_thread::yield();
        EXPECT_EQ(buffer.data()[0], t);
        EXPECT_EQ(buffer.data()[buffer.size() - 1], t);
        held -= buffer.size();
        pool.Give(std::move(buffer));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(held, 0);
  EXPECT_LE(most, kLimit);
  EXPECT_GT(most, 12 * kMiB) << "several had one at a time";
}

}  // namespace
}  // namespace bearing::edit
