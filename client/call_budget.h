// The time and the rounds of attempts that one call may take.

#ifndef TOWLINE_CLIENT_CALL_BUDGET_H_
#define TOWLINE_CLIENT_CALL_BUDGET_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "client/retry_policy.h"
#include "common/clock.h"
#include "common/rng.h"
#include "towline/client.h"

namespace towline::client {

inline int64_t Micros(std::chrono::milliseconds time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

// Threads: one.
class CallBudget {
 public:
  CallBudget(const ClientOptions& options, int64_t timeout_us)
      : attempt_us_(Micros(options.attempt_timeout)),
        rounds_max_(options.rounds_max),
        begin_us_(SystemClock()->MonotonicMicros()),
        timeout_us_(timeout_us),
        pause_(Micros(options.backoff_min), Micros(options.backoff_max), *SystemRng()) {}

  int64_t spent_us() const { return SystemClock()->MonotonicMicros() - begin_us_; }
  int64_t left_us() const { return timeout_us_ - spent_us(); }

  // For an attempt that may take `extra_us` longer than others; never more than what is left.
  int64_t AttemptMicros(int64_t extra_us) const {
    return std::max<int64_t>(1, std::min(left_us(), attempt_us_ + extra_us));
  }

  // Pauses before another round of attempts; false: there is none.
  bool NextRound() {
    if (++rounds_ == rounds_max_) return false;
    const int64_t pause = pause_.NextMicros();
    if (pause >= left_us()) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(pause));
    return true;
  }

 private:
  const int64_t attempt_us_;
  const int rounds_max_;
  const int64_t begin_us_;
  const int64_t timeout_us_;
  RetryPause pause_;
  int rounds_ = 0;
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_CALL_BUDGET_H_
