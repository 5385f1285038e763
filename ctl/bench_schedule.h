// When a load begins and ends, and what is measured meanwhile.

#ifndef TOWLINE_CTL_BENCH_SCHEDULE_H_
#define TOWLINE_CTL_BENCH_SCHEDULE_H_

#include <chrono>

#include "absl/status/status.h"

#include "ctl/bench_load.h"

namespace towline::ctl {

struct Schedule {
  using Clock = std::chrono::steady_clock;

  // Begins now, with the warm-up.
  explicit Schedule(const LoadOptions& options);

  bool Measured(Clock::time_point time) const { return time >= begin && time < end; }

  Clock::time_point begin;
  Clock::time_point end;
  Clock::time_point give_up;
};

// Waits for the end of the measured part, or an interrupt. The result has its time and this process's processor time.
LoadResult AwaitEnd(const Schedule& schedule, const Interrupt& interrupt);

// Adds what one thread has counted.
void AddPart(const LoadResult& part, LoadResult* result);

void CountError(const absl::Status& error, LoadResult& result);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BENCH_SCHEDULE_H_
