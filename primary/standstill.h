// Notices that the process stood still: it was stopped, the machine was suspended, or its threads got no time.
//
// Meanwhile others may have made another node the primary, so nothing that was decided before may be answered before
// they were asked. One loop beats; whoever is about to answer looks whether the last beat is too long ago. The clock
// runs while the machine is suspended.

#ifndef TOWLINE_PRIMARY_STANDSTILL_H_
#define TOWLINE_PRIMARY_STANDSTILL_H_

#include <atomic>
#include <cstdint>

#include "common/clock.h"

namespace towline {

// Threads: Beat from one thread, suspected from any.
class Standstill {
 public:
  // `pause_max_micros` 0 = never.
  Standstill(Clock& clock, int64_t pause_max_micros)
      : clock_(clock), pause_max_micros_(pause_max_micros), last_micros_(clock.BootMicros()) {}

  // Returns how long it stood still, if that was too long since the beat before, or suspected has said so; else 0.
  int64_t Beat() {
    const int64_t now = clock_.BootMicros();
    const int64_t gap = now - last_micros_.exchange(now, std::memory_order_acq_rel);
    const bool noticed = noticed_.exchange(false, std::memory_order_acq_rel);
    return noticed || (pause_max_micros_ > 0 && gap > pause_max_micros_) ? gap : 0;
  }

  // Whether it may have stood still since the last beat. A true answer makes the next Beat tell so.
  bool suspected() {
    if (pause_max_micros_ <= 0) return false;
    if (clock_.BootMicros() - last_micros_.load(std::memory_order_acquire) <= pause_max_micros_) return false;
    noticed_.store(true, std::memory_order_release);
    return true;
  }

 private:
  Clock& clock_;
  const int64_t pause_max_micros_;
  std::atomic<int64_t> last_micros_;
  std::atomic<bool> noticed_{false};
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_STANDSTILL_H_
