// How far each stage of an owner is behind: records, bytes, seconds.

#ifndef TOWLINE_PRIMARY_STAGE_LAG_H_
#define TOWLINE_PRIMARY_STAGE_LAG_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "common/types.h"

namespace towline {

// Last LSN of each stage of one owner.
struct StageLsns {
  Lsn sent = 0;
  Lsn received = 0;
  Lsn flushed = 0;
  Lsn applied = 0;
};

struct StageLag {
  const char* stage = "";         // sent, received, flushed, applied
  uint64_t records = 0;           // between the durable LSN here and the stage's
  uint64_t bytes = 0;             // of log between them
  std::optional<double> seconds;  // absent = no session
};

// What the lag is measured against.
struct LagReference {
  Lsn durable_lsn = 0;
  std::function<uint64_t(Lsn)> bytes_behind;  // bytes of log behind an LSN below durable_lsn
  std::function<double(Lsn)> seconds;         // as HeartbeatLog::LagSeconds; empty = no session
};

// sent, received, flushed, applied, in this order. What an owner has received was sent, and so on: an earlier stage is
// never told to be further behind than a later one, except applied, which may stand for itself.
std::vector<StageLag> LagByStage(const StageLsns& lsns, const LagReference& reference);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_STAGE_LAG_H_
