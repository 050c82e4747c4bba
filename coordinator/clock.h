// Time and randomness as values that are passed in, so that tests decide both.
#ifndef BEARING_COORDINATOR_CLOCK_H_
#define BEARING_COORDINATOR_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <functional>

namespace bearing::coordinator {

using SteadyTime = std::chrono::steady_clock::time_point;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // For durations: a wall clock that jumps must not end a lease.
  virtual SteadyTime SteadyNow() const = 0;
  // For what people read.
  virtual std::chrono::system_clock::time_point WallNow() const = 0;
};

class SystemClock final : public Clock {
 public:
  SteadyTime SteadyNow() const override { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point WallNow() const override { return std::chrono::system_clock::now(); }
};

// 32 random bits a call. Needs no thread safety: the scheduler calls it under its lock.
using RandomSource = std::function<uint32_t()>;

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_CLOCK_H_
