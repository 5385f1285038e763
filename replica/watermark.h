// Keeps control's durable watermark near the end of the log.
//
// The watermark proves at the next start that the log was durable up to it. It is saved when the log has been idle for
// a while and at a clean stop, never on the append path; it only rises and never passes the durable end.

#ifndef TOWLINE_REPLICA_WATERMARK_H_
#define TOWLINE_REPLICA_WATERMARK_H_

#include <cstdint>

#include "absl/status/status.h"

#include "common/clock.h"
#include "common/control.h"
#include "replica/generation.h"

namespace towline {

// For primaries and replicas alike. An error is fatal for the node: control cannot be written.
// Threads: external synchronization. The references must outlive it.
class WatermarkSaver {
 public:
  WatermarkSaver(ControlFile& control, Clock& clock, int64_t idle_micros = 1'000'000)
      : control_(control), clock_(clock), idle_micros_(idle_micros) {}

  // Saves the durable end of `live` if nothing was appended since a call at least the idle time ago. A timer calls it.
  absl::Status MaybeSaveWatermark(Generation& live);

  // Saves the durable end of `live` now, unless it is saved already. For a clean stop.
  absl::Status SaveWatermark(Generation& live);

 private:
  ControlFile& control_;
  Clock& clock_;
  const int64_t idle_micros_;
  uint64_t generation_ = 0;  // that the fields below speak of
  Lsn seen_lsn_ = 0;         // durable end at the last call
  int64_t seen_micros_ = 0;  // when it was first seen there
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_WATERMARK_H_
