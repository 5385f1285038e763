#include "common/clock.h"

#include <ctime>

#include "common/check.h"

namespace towline {
namespace {

int64_t Micros(clockid_t id) {
  timespec now;
  TOWLINE_CHECK(clock_gettime(id, &now) == 0);
  return static_cast<int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

class MachineClock : public Clock {
 public:
  int64_t WallMicros() const override { return Micros(CLOCK_REALTIME); }
  int64_t MonotonicMicros() const override { return Micros(CLOCK_MONOTONIC); }
  int64_t BootMicros() const override { return Micros(CLOCK_BOOTTIME); }
};

}  // namespace

Clock* SystemClock() {
  static MachineClock* const clock = new MachineClock;
  return clock;
}

}  // namespace towline
