// The heartbeats of the recent past, to tell how old the oldest record is that somebody has not applied.

#ifndef TOWLINE_PRIMARY_HEARTBEAT_LOG_H_
#define TOWLINE_PRIMARY_HEARTBEAT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "common/types.h"
#include "primary/node_view.h"

namespace towline {

// Threads: external synchronization.
class HeartbeatLog {
 public:
  // Older heartbeats get sparser, so that no more than this are kept.
  static constexpr size_t kEntriesMax = 8192;

  // Adds the newest one. Marks above its durable LSN are forgotten: they are of a line that is gone.
  void Add(const HeartbeatInfo& heartbeat);

  void Clear();

  // Sequence 0 = none yet.
  const HeartbeatInfo& newest() const { return newest_; }

  // Age of the oldest heartbeat whose durable LSN is above `applied`; 0 if the newest one is covered.
  double LagSeconds(Lsn applied, int64_t now_micros) const;

 private:
  struct Mark {
    Lsn durable_lsn = 0;
    int64_t made_micros = 0;  // of the oldest heartbeat that it stands for
    int64_t last_micros = 0;  // of the newest one
  };

  void Thin(int64_t now_micros);

  HeartbeatInfo newest_;
  std::deque<Mark> marks_;  // rising; the first heartbeat with that LSN
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_HEARTBEAT_LOG_H_
