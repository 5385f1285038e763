// When slots will be invalidated and the disk will be full if everything goes on as it does. A pure function.
//
// Where the two windows of the rates disagree, the one with the larger net growth counts: the forecast is the earlier
// one. A net growth below 1 byte per second is none. Log is counted in bytes, not in whole segments, of which up to two
// more may stay on the disk.
//
// Units: bytes, bytes per second, seconds from now.

#ifndef TOWLINE_PRIMARY_SLOT_FORECAST_H_
#define TOWLINE_PRIMARY_SLOT_FORECAST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/file_system.h"
#include "primary/rates.h"
#include "slots/slot_table.h"

namespace towline {

// One slot as it is.
struct ForecastSlot {
  std::string name;
  slots::SlotKind kind = slots::SlotKind::kReplica;
  slots::SlotState state = slots::SlotState::kInactive;
  std::string lost_cause;       // why it does not hold the log any more; empty = it does
  uint64_t retained_bytes = 0;  // of log that it holds
  bool has_session = false;
  double idle_seconds = 0;     // without a session; 0 with one
  bool is_copy = false;        // of another node's slot: its idle time does not count here
  std::optional<Rates> drain;  // nullopt = not measured yet; taken as 0
  // Of what it holds, while it has a session: LogRates::growth. nullopt = append less drain.
  std::optional<Rates> growth = std::nullopt;
};

struct ForecastInput {
  std::vector<ForecastSlot> slots;
  std::optional<Rates> append;       // nullopt = not measured yet: nothing is said of what depends on it
  double measured_seconds = 0;       // for how long the log was watched
  uint64_t log_bytes = 0;            // on the disk
  uint64_t kept_log_bytes = 0;       // of log that stays whatever slots hold
  std::optional<SpaceInfo> disk;     // nullopt = not known
  std::optional<Rates> disk_growth;  // of used bytes, by whomever; negative when it empties
  slots::SlotLimits limits;
};

// What is to be taken as different from how it is.
struct ForecastWhatIf {
  std::optional<uint64_t> max_retained_bytes = std::nullopt;
  // The owner of each slot is away for so long, one at a time, and its confirmed LSN stands still. Above 0.
  std::optional<double> replica_off_seconds = std::nullopt;
  std::optional<uint64_t> disk_bytes = std::nullopt;  // the disk has this size, and as much of it is in use as now
};

struct SlotForecast {
  ForecastSlot slot;
  double growth_per_second = 0;            // of retained bytes, which the forecast reckons with; may be negative
  uint64_t headroom_bytes = 0;             // until max_retained_bytes
  std::optional<double> headroom_seconds;  // the same; nullopt = never at these rates
  // Until the first limit is reached, if the owner does not come back in the meantime; 0 = now, or it is lost already;
  // nullopt = never at these rates.
  std::optional<double> seconds_to_invalidation;
  std::string cause;                            // retained_bytes, idle_timeout or disk_pressure; that of a lost slot
  std::optional<uint64_t> retained_bytes_then;  // at that moment
  // False if the slot is lost, would be invalidated at once, or, with replica_off_seconds, before its owner is back.
  bool survives = true;
};

struct DiskForecast {
  SpaceInfo space;
  std::optional<Rates> growth;
  std::optional<double> seconds_to_guard;  // nullopt = never at this rate, or no guard
  std::optional<double> seconds_to_full;   // nullopt = never at this rate
};

struct Forecast {
  std::vector<SlotForecast> slots;  // as in the input
  std::optional<Rates> append;
  double measured_seconds = 0;
  uint64_t log_bytes = 0;
  uint64_t kept_log_bytes = 0;
  slots::SlotLimits limits;          // those that were reckoned with
  std::optional<DiskForecast> disk;  // nullopt = not known
};

// Causes: the earliest limit; of several at once in the order retained_bytes, idle_timeout, disk_pressure.
//
// disk_pressure is said of every slot that would hold more than kept_log_bytes once the disk is in use up to its guard.
// The node gives them up one by one and stops when there is room: some may survive. The guard is reached by the growth
// of the disk, or by the log that this slot holds back beyond what is on the disk now, whichever is earlier.
Forecast MakeForecast(const ForecastInput& input, const ForecastWhatIf& what_if = {});

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SLOT_FORECAST_H_
