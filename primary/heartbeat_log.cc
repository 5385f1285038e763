#include "primary/heartbeat_log.h"

#include <algorithm>

namespace towline {

void HeartbeatLog::Add(const HeartbeatInfo& heartbeat) {
  newest_ = heartbeat;
  while (!marks_.empty() && marks_.back().durable_lsn > heartbeat.durable_lsn) marks_.pop_back();
  if (!marks_.empty() && marks_.back().durable_lsn == heartbeat.durable_lsn) return;
  marks_.push_back({heartbeat.durable_lsn, heartbeat.made_micros});
  if (marks_.size() <= kEntriesMax) return;
  // Pairs of the older half become one mark, with the LSN of the newer and the time of the older one: lag may be told
  // too large by their distance, never too small.
  const size_t half = marks_.size() / 4 * 2;
  std::deque<Mark> thinned;
  for (size_t i = 0; i < half; i += 2) thinned.push_back({marks_[i + 1].durable_lsn, marks_[i].made_micros});
  thinned.insert(thinned.end(), marks_.begin() + static_cast<std::ptrdiff_t>(half), marks_.end());
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
