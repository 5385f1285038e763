#include "primary/heartbeat_log.h"

#include <algorithm>

namespace towline {

void HeartbeatLog::Add(const HeartbeatInfo& heartbeat) {
  newest_ = heartbeat;
  while (!marks_.empty() && marks_.back().durable_lsn > heartbeat.durable_lsn) marks_.pop_back();
  if (!marks_.empty() && marks_.back().durable_lsn == heartbeat.durable_lsn) return;
  marks_.push_back({heartbeat.durable_lsn, heartbeat.made_micros, heartbeat.made_micros});
  if (marks_.size() > kEntriesMax) Thin(heartbeat.made_micros);
}

// Merges neighbours of about the same age, so that few marks are left of a long past. A merged mark has the LSN of its
// newest and the time of its oldest heartbeat: lag may be told too large by a sixteenth, never too small.
void HeartbeatLog::Thin(int64_t now_micros) {
  std::deque<Mark> thinned;
  for (const Mark& mark : marks_) {
    const bool same_age =
        !thinned.empty() && (now_micros - thinned.back().made_micros) * 16 <= (now_micros - mark.last_micros) * 17;
    if (same_age) {
      thinned.back().durable_lsn = mark.durable_lsn;
      thinned.back().last_micros = mark.last_micros;
    } else {
      thinned.push_back(mark);
    }
  }
  marks_ = std::move(thinned);
}

void HeartbeatLog::Clear() {
  newest_ = {};
  marks_.clear();
}

double HeartbeatLog::LagSeconds(Lsn applied, int64_t now_micros) const {
  const auto uncovered = std::upper_bound(marks_.begin(), marks_.end(), applied,
                                          [](Lsn lsn, const Mark& mark) { return lsn < mark.durable_lsn; });
  if (uncovered == marks_.end()) return 0;
  return static_cast<double>(std::max<int64_t>(0, now_micros - uncovered->made_micros)) / 1e6;
}

}  // namespace towline
