#include "primary/flow_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {

const char* FlowStateName(FlowState state) {
  switch (state) {
    case FlowState::kOff:
      return "off";
    case FlowState::kOpen:
      return "open";
    case FlowState::kSlowed:
      return "slowed";
    case FlowState::kRefused:
      return "refused";
  }
  return "off";
}

absl::Status FlowControl::Behind() const {
  return MakeError(absl::StatusCode::kResourceExhausted, "replicas_behind",
                   absl::StrCat("the replicas are ", stats_.lag_bytes, " bytes behind; flow.max_lag_bytes is ",
                                options_.max_lag_bytes),
                   "look at the replicas with towctl status, or retry with backoff");
}

FlowControl::Admission FlowControl::Admit(uint64_t bytes, const std::function<Resume()>& resume,
                                          absl::Status* refused) {
  if (off()) return Admission::kGo;
  MutexLock lock(&mutex_);
  if (closed_) return Admission::kGo;
  if (state_ == FlowState::kRefused) {
    ++stats_.refused_total;
    *refused = Behind();
    return Admission::kRefused;
  }
  if (state_ == FlowState::kOpen && waiting_.empty()) return Admission::kGo;
  if (!waiting_.empty() && stats_.waiting_bytes + bytes > options_.queue_bytes_max) {
    ++stats_.refused_total;
    *refused = MakeError(absl::StatusCode::kResourceExhausted, "queue_full",
                         absl::StrCat("writes of ", stats_.waiting_bytes,
                                      " bytes wait for the replicas; wal.queue_bytes is ", options_.queue_bytes_max),
                         "retry with backoff");
    return Admission::kRefused;
  }
  ++stats_.slowed_total;
  stats_.waiting_bytes += bytes;
  waiting_.push_back({bytes, resume()});
  return Admission::kWait;
}

void FlowControl::ChangeState(const FlowView& view, int64_t now) {
  const uint64_t most = options_.max_lag_bytes;
  if (view.lag_bytes <= most) above_since_micros_ = now;
  const FlowState before = state_;
  if (view.lag_bytes <= most / 4 * 3) {
    state_ = FlowState::kOpen;
  } else if (state_ == FlowState::kOpen && view.lag_bytes > most) {
    state_ = FlowState::kSlowed;
    above_since_micros_ = now;
  } else if (state_ == FlowState::kSlowed && now - above_since_micros_ >= options_.refuse_after_micros) {
    state_ = FlowState::kRefused;
  }
  if (state_ == before) return;
  budget_bytes_ = 0;
  logger_.Log(state_ == FlowState::kOpen ? LogLevel::kInfo : LogLevel::kWarning, "flow_changed",
              {{"state", FlowStateName(state_)},
               {"before", FlowStateName(before)},
               {"lag_bytes", view.lag_bytes},
               {"max_lag_bytes", most}});
}

void FlowControl::Tick(const FlowView& view) {
  if (off()) return;
  std::vector<Waiting> released;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (closed_) return;
    stats_.lag_bytes = view.lag_bytes;
    ChangeState(view, clock_.MonotonicMicros());
    const uint64_t held = view.head_bytes - std::min(view.head_bytes, view.lag_bytes);
    if (held > held_bytes_) budget_bytes_ += static_cast<int64_t>((held - held_bytes_) / 4 * 3);
    held_bytes_ = held;
    if (state_ == FlowState::kRefused) {
      status = Behind();
      stats_.refused_total += waiting_.size();
    }
    while (!waiting_.empty() && (state_ != FlowState::kSlowed || budget_bytes_ > 0)) {
      budget_bytes_ -= static_cast<int64_t>(waiting_.front().bytes);
      stats_.waiting_bytes -= waiting_.front().bytes;
      released.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    // What was not needed is no claim for later.
    if (waiting_.empty()) budget_bytes_ = std::min<int64_t>(budget_bytes_, 0);
  }
  for (const Waiting& write : released) write.resume(status);
}

void FlowControl::Close() {
  std::deque<Waiting> released;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    released.swap(waiting_);
    stats_.waiting_bytes = 0;
  }
  for (const Waiting& write : released) write.resume(absl::OkStatus());
}

FlowStats FlowControl::stats() const {
  MutexLock lock(&mutex_);
  FlowStats stats = stats_;
  stats.state = state_;
  return stats;
}

}  // namespace towline
