// A rate over the last few seconds.

#ifndef TOWLINE_REPLICA_RATE_WINDOW_H_
#define TOWLINE_REPLICA_RATE_WINDOW_H_

#include <cstdint>
#include <deque>

namespace towline {

// Threads: external synchronization.
class RateWindow {
 public:
  // The level at `now_micros`. Looks at it more often than ten times a second are dropped.
  void Observe(int64_t now_micros, uint64_t level) {
    if (!looks_.empty() && now_micros - looks_.back().micros < kStepMicros) return;
    looks_.push_back({now_micros, level});
    while (looks_.size() > 2 && now_micros - looks_.front().micros > kWindowMicros) looks_.pop_front();
  }

  // By which the level rose per second over the window; 0 until two looks.
  double per_second() const {
    if (looks_.size() < 2 || looks_.back().level < looks_.front().level) return 0;
    return static_cast<double>(looks_.back().level - looks_.front().level) * 1e6 /
           static_cast<double>(looks_.back().micros - looks_.front().micros);
  }

  void Clear() { looks_.clear(); }

 private:
  static constexpr int64_t kStepMicros = 100'000;
  static constexpr int64_t kWindowMicros = 5'000'000;
  struct Look {
    int64_t micros;
    uint64_t level;
  };
  std::deque<Look> looks_;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_RATE_WINDOW_H_
