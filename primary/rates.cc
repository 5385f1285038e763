#include "primary/rates.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace towline {

void RateMeter::Observe(int64_t now_micros, int64_t level_bytes) {
  if (!begun_) {
    begun_ = true;
    first_micros_ = last_micros_ = now_micros;
    level_bytes_ = level_bytes;
    return;
  }
  if (now_micros <= last_micros_) return;
  const double seconds = static_cast<double>(now_micros - last_micros_) * 1e-6;
  const double rate = static_cast<double>(level_bytes - level_bytes_) / seconds;
  // The exact integral of a rate that is constant between two looks, so that their distance does not matter.
  const auto add = [&](double window, double* sum) {
    const double kept = std::exp(-seconds / window);
    *sum = *sum * kept + rate * (1 - kept);
  };
  add(kShortWindowSeconds, &sum_1m_);
  add(kLongWindowSeconds, &sum_15m_);
  last_micros_ = now_micros;
  level_bytes_ = level_bytes;
}

std::optional<Rates> RateMeter::rates() const {
  const double seconds = measured_seconds();
  if (seconds <= 0) return std::nullopt;
  return Rates{sum_1m_ / -std::expm1(-seconds / kShortWindowSeconds),
               sum_15m_ / -std::expm1(-seconds / kLongWindowSeconds)};
}

void LogRates::Observe(const Look& look, const std::vector<slots::Slot>& slots) {
  if (look.disk_used_bytes) {
    disk_growth_.Observe(look.now_micros, static_cast<int64_t>(*look.disk_used_bytes));
  } else {
    disk_growth_ = RateMeter();
  }
  if (look.data_generation != data_generation_) {
    data_generation_ = look.data_generation;
    append_ = RateMeter();
    drains_.clear();
  }
  append_.Observe(look.now_micros, static_cast<int64_t>(look.appended_bytes));
  std::map<std::string, Drain> seen;
  for (const slots::Slot& slot : slots) {
    if (slot.state == slots::SlotState::kInvalidated || slot.data_generation != data_generation_) continue;
    Drain& drain = seen[slot.name];
    const auto before = drains_.find(slot.name);
    if (before != drains_.end() && before->second.slot_generation == slot.generation) {
      drain = std::move(before->second);
    } else {
      drain.slot_generation = slot.generation;
      drain.confirmed_lsn = slot.confirmed_lsn;
    }
    // Only what lies between the two LSNs: bytes_behind is exact to an index interval, and a slot that stands still
    // must not seem to move. Asked in this order, what is appended in between makes the drain smaller, not larger.
    if (slot.confirmed_lsn > drain.confirmed_lsn) {
      const uint64_t from = look.bytes_behind(drain.confirmed_lsn);
      const uint64_t to = look.bytes_behind(slot.confirmed_lsn);
      drain.drained_bytes += static_cast<int64_t>(from - std::min(from, to));
      drain.confirmed_lsn = slot.confirmed_lsn;
    }
    drain.meter.Observe(look.now_micros, drain.drained_bytes);
    drain.append.Observe(look.now_micros, static_cast<int64_t>(look.appended_bytes));
  }
  drains_ = std::move(seen);
}

const LogRates::Drain* LogRates::Find(const slots::Slot& slot) const {
  const auto found = drains_.find(slot.name);
  const bool same = found != drains_.end() && found->second.slot_generation == slot.generation;
  return same ? &found->second : nullptr;
}

std::optional<Rates> LogRates::drain(const slots::Slot& slot) const {
  const Drain* const drain = Find(slot);
  return drain == nullptr ? std::nullopt : drain->meter.rates();
}

std::optional<Rates> LogRates::growth(const slots::Slot& slot) const {
  const Drain* const of_slot = Find(slot);
  const std::optional<Rates> drain = of_slot == nullptr ? std::nullopt : of_slot->meter.rates();
  if (!drain) return std::nullopt;
  const Rates append = *of_slot->append.rates();  // the same looks
  return Rates{append.per_second_1m - drain->per_second_1m, append.per_second_15m - drain->per_second_15m};
}

}  // namespace towline
