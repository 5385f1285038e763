// Pauses between attempts: they double up to a maximum, with jitter so that many nodes do not come at once.

#ifndef TOWLINE_REPLICA_BACKOFF_H_
#define TOWLINE_REPLICA_BACKOFF_H_

#include <algorithm>
#include <cstdint>

#include "common/rng.h"

namespace towline {

// Threads: external synchronization.
class Backoff {
 public:
  // Requires 0 < min_micros <= max_micros. `rng` must outlive it.
  Backoff(int64_t min_micros, int64_t max_micros, Rng& rng)
      : min_micros_(min_micros), max_micros_(max_micros), next_micros_(min_micros), rng_(rng) {}

  // The next pause: three quarters to the whole of the present step, which then doubles.
  int64_t Next() {
    const int64_t step = next_micros_;
    next_micros_ = std::min(max_micros_, 2 * step);
    return step - static_cast<int64_t>(rng_.Next() % static_cast<uint64_t>(step / 4 + 1));
  }

  void Reset() { next_micros_ = min_micros_; }

 private:
  const int64_t min_micros_;
  const int64_t max_micros_;
  int64_t next_micros_;
  Rng& rng_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_BACKOFF_H_
