// Writes that wait, or are refused, because the replicas that are to hold them are too far behind.

#ifndef TOWLINE_PRIMARY_FLOW_CONTROL_H_
#define TOWLINE_PRIMARY_FLOW_CONTROL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "absl/status/status.h"

#include "common/clock.h"
#include "common/logger.h"
#include "common/mutex.h"

namespace towline {

struct FlowOptions {
  uint64_t max_lag_bytes = 0;               // 0 = off
  int64_t refuse_after_micros = 5'000'000;  // slowed for so long without getting below the limit: refused
  uint64_t queue_bytes_max = 64ull << 20;   // of writes that wait
};

enum class FlowState : uint8_t { kOff, kOpen, kSlowed, kRefused };

const char* FlowStateName(FlowState state);

// What Tick looks at.
struct FlowView {
  uint64_t head_bytes = 0;  // bytes of log written so far
  uint64_t lag_bytes = 0;   // of them, those that the replicas do not hold
};

struct FlowStats {
  FlowState state = FlowState::kOff;
  uint64_t lag_bytes = 0;
  uint64_t waiting_bytes = 0;
  uint64_t slowed_total = 0;   // writes that had to wait
  uint64_t refused_total = 0;  // writes
};

// Open until the lag is above the limit; then slowed: writes wait, and go on at three quarters of the pace of the
// replicas, so that the lag falls. If it does not fall below the limit in time: refused. Open again at three quarters
// of the limit. Threads: all methods from any thread, Tick from one.
class FlowControl {
 public:
  // Called with OK when the write may go on, else with why it may not; from Tick or Close, without locks held.
  using Resume = std::function<void(const absl::Status&)>;

  enum class Admission { kGo, kWait, kRefused };

  FlowControl(Clock& clock, Logger& logger, FlowOptions options) : clock_(clock), logger_(logger), options_(options) {
    state_ = options.max_lag_bytes == 0 ? FlowState::kOff : FlowState::kOpen;
  }

  // kGo: write. kWait: `resume()` was called to get what is called later. kRefused: *refused says why,
  // RESOURCE_EXHAUSTED, reason replicas_behind or queue_full.
  Admission Admit(uint64_t bytes, const std::function<Resume()>& resume, absl::Status* refused)
      TOWLINE_EXCLUDES(mutex_);

  // Every few hundredths of a second.
  void Tick(const FlowView& view) TOWLINE_EXCLUDES(mutex_);

  // Lets everything go: what it was for refuses by itself now.
  void Close() TOWLINE_EXCLUDES(mutex_);

  bool off() const { return options_.max_lag_bytes == 0; }
  FlowStats stats() const TOWLINE_EXCLUDES(mutex_);

 private:
  struct Waiting {
    uint64_t bytes;
    Resume resume;
  };

  void ChangeState(const FlowView& view, int64_t now) TOWLINE_REQUIRES(mutex_);
  absl::Status Behind() const TOWLINE_REQUIRES(mutex_);

  Clock& clock_;
  Logger& logger_;
  const FlowOptions options_;

  mutable Mutex mutex_;
  FlowState state_ TOWLINE_GUARDED_BY(mutex_);
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::deque<Waiting> waiting_ TOWLINE_GUARDED_BY(mutex_);
  FlowStats stats_ TOWLINE_GUARDED_BY(mutex_);
  int64_t above_since_micros_ TOWLINE_GUARDED_BY(mutex_) = 0;  // the lag is above the limit
  uint64_t held_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;         // of log, by the replicas, at the last tick
  int64_t budget_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;        // that may go on now
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_FLOW_CONTROL_H_
