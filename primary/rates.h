// Smoothed rates: how fast the log grows, how fast each slot lets go of it, how fast the disk fills.
//
// A rate is an exponentially weighted mean over time, with time constants of 1 and 15 minutes, as load averages are:
// what happened one time constant ago weighs 1/e of what happens now. Looks may come at any distance. A meter that is
// younger than a window gives the mean over the time that it has seen, never a mean with an unseen past taken for zero:
// after 10 s both windows are about the mean of these 10 s. measured_seconds tells how much that is.
//
// Units    bytes, bytes per second, monotonic microseconds.
// Threads  thread-compatible.

#ifndef TOWLINE_PRIMARY_RATES_H_
#define TOWLINE_PRIMARY_RATES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/types.h"
#include "slots/slot_table.h"

namespace towline {

inline constexpr double kShortWindowSeconds = 60;
inline constexpr double kLongWindowSeconds = 15 * 60;

struct Rates {
  double per_second_1m = 0;
  double per_second_15m = 0;
};

// The rate at which one level changes.
class RateMeter {
 public:
  // The level now. The first call only begins; one at the same time as the one before, or earlier, is ignored: its
  // bytes count for the next interval.
  void Observe(int64_t now_micros, int64_t level_bytes);

  // nullopt until two looks at different times.
  std::optional<Rates> rates() const;
  double measured_seconds() const { return static_cast<double>(last_micros_ - first_micros_) * 1e-6; }

 private:
  bool begun_ = false;
  int64_t first_micros_ = 0;
  int64_t last_micros_ = 0;
  int64_t level_bytes_ = 0;
  // Weighted sums, not yet divided by the weight of the time that was seen.
  double sum_1m_ = 0;
  double sum_15m_ = 0;
};

// Rates of one node's log, slots and disk. About 150 bytes and a name for each slot that holds the log.
class LogRates {
 public:
  struct Look {
    int64_t now_micros = 0;
    uint64_t data_generation = 0;               // of the live log; with another one all rates but the disk's begin anew
    uint64_t appended_bytes = 0;                // to the log since it was opened
    std::optional<uint64_t> disk_used_bytes;    // on the disk of the data directory, by whomever; nullopt = not known
    std::function<uint64_t(Lsn)> bytes_behind;  // bytes of log behind an LSN
  };

  // Takes everything in. A slot that is not in `slots`, or holds nothing of this log, is forgotten; one of another slot
  // generation than before begins anew.
  void Observe(const Look& look, const std::vector<slots::Slot>& slots);

  const RateMeter& append() const { return append_; }
  const RateMeter& disk_growth() const { return disk_growth_; }
  // Bytes of log per second by which the confirmed LSN moves. nullopt: not measured yet.
  std::optional<Rates> drain(const slots::Slot& slot) const;
  // By which the log that the slot holds grows: append less drain, both over the time that the drain was watched. A
  // burst before that time is not the slot's. nullopt: not measured yet.
  std::optional<Rates> growth(const slots::Slot& slot) const;

 private:
  struct Drain {
    uint64_t slot_generation = 0;
    Lsn confirmed_lsn = 0;
    int64_t drained_bytes = 0;  // since it began
    RateMeter meter;
    RateMeter append;  // in the same time
  };

  uint64_t data_generation_ = 0;
  RateMeter append_;
  RateMeter disk_growth_;
  const Drain* Find(const slots::Slot& slot) const;

  std::map<std::string, Drain> drains_;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_RATES_H_
