// A clock that moves only when a test says so.

#ifndef TOWLINE_TESTS_SUPPORT_FAKE_CLOCK_H_
#define TOWLINE_TESTS_SUPPORT_FAKE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "common/clock.h"

namespace towline::test {

// Starts at 2023-11-14T22:13:20Z, one hour after boot.
// Threads: all methods from any thread.
class FakeClock : public Clock {
 public:
  int64_t WallMicros() const override { return wall_; }
  int64_t MonotonicMicros() const override { return monotonic_; }
  int64_t BootMicros() const override { return boot_; }

  // Time passes.
  void Advance(int64_t micros) {
    wall_ += micros;
    monotonic_ += micros;
    boot_ += micros;
  }

  // The machine sleeps: the monotonic clock stands still.
  void Suspend(int64_t micros) {
    wall_ += micros;
    boot_ += micros;
  }

  // Somebody sets the wall clock.
  void JumpWall(int64_t micros) { wall_ += micros; }

 private:
  std::atomic<int64_t> wall_{int64_t{1700000000} * 1000000};
  std::atomic<int64_t> monotonic_{int64_t{3600} * 1000000};
  std::atomic<int64_t> boot_{int64_t{3600} * 1000000};
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_FAKE_CLOCK_H_
