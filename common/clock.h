// Time. Core code never asks the operating system itself.

#ifndef TOWLINE_COMMON_CLOCK_H_
#define TOWLINE_COMMON_CLOCK_H_

#include <cstdint>

namespace towline {

// Threads: all methods may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;

  // Unix time in microseconds (CLOCK_REALTIME). May jump either way.
  virtual int64_t WallMicros() const = 0;

  // Microseconds since an arbitrary point (CLOCK_MONOTONIC). Never falls.
  virtual int64_t MonotonicMicros() const = 0;

  // Like MonotonicMicros, and it also runs while the machine is suspended (CLOCK_BOOTTIME).
  virtual int64_t BootMicros() const = 0;
};

// The machine's clocks. Lives for ever.
Clock* SystemClock();

}  // namespace towline

#endif  // TOWLINE_COMMON_CLOCK_H_
