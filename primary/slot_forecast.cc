#include "primary/slot_forecast.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace towline {
namespace {

constexpr double kGrowthMin = 1;  // bytes per second; less is none

// Seconds; infinity is never.
constexpr double kNever = std::numeric_limits<double>::infinity();

std::optional<double> OrNever(double seconds) {
  return seconds == kNever ? std::nullopt : std::optional<double>(seconds);
}

// Until `room` bytes are used up.
double SecondsFor(double room, double growth) {
  if (room < 0) return 0;
  return growth < kGrowthMin ? kNever : room / growth;
}

double Larger(const Rates& rates) { return std::max(rates.per_second_1m, rates.per_second_15m); }

double DiskGrowth(const ForecastInput& input) { return input.disk_growth ? Larger(*input.disk_growth) : 0; }

double NetGrowth(const ForecastInput& input, const ForecastSlot& slot, bool stands_still) {
  if (!input.append) return 0;
  if (!stands_still && slot.growth) return Larger(*slot.growth);
  const Rates drain = stands_still ? Rates{} : slot.drain.value_or(Rates{});
  return Larger(
      {input.append->per_second_1m - drain.per_second_1m, input.append->per_second_15m - drain.per_second_15m});
}

// Until the disk is in use up to its guard; negative = beyond it. nullopt = there is none.
std::optional<double> RoomToGuard(const ForecastInput& input) {
  if (!input.disk || input.disk->total_bytes == 0 || input.limits.disk_guard_ratio <= 0) return std::nullopt;
  const double total = static_cast<double>(input.disk->total_bytes);
  return static_cast<double>(input.disk->available_bytes) - (1 - input.limits.disk_guard_ratio) * total;
}

double SecondsToRetained(const ForecastInput& input, const ForecastSlot& slot, double growth) {
  return SecondsFor(static_cast<double>(input.limits.max_retained_bytes) - static_cast<double>(slot.retained_bytes),
                    growth);
}

double SecondsToIdle(const ForecastInput& input, const ForecastSlot& slot, bool goes_away) {
  const int64_t limit =
      slot.kind == slots::SlotKind::kConsumer ? input.limits.consumer_idle_micros : input.limits.replica_idle_micros;
  if (limit <= 0 || slot.is_copy || (slot.has_session && !goes_away)) return kNever;
  return std::max(0.0, static_cast<double>(limit) * 1e-6 - slot.idle_seconds);
}

double SecondsToDiskPressure(const ForecastInput& input, const ForecastSlot& slot, double growth) {
  const std::optional<double> room = RoomToGuard(input);
  if (!room) return kNever;
  const double retained = static_cast<double>(slot.retained_bytes);
  // The log on the disk grows on its account once it holds more than all of what is there.
  const double slack = std::max(0.0, static_cast<double>(input.log_bytes) - retained);
  const double guard =
      *room <= 0 ? 0 : std::min(SecondsFor(*room, DiskGrowth(input)), SecondsFor(*room + slack, growth));
  if (guard == kNever) return kNever;
  // Who holds no more than what stays anyway is spared.
  const double kept = static_cast<double>(input.kept_log_bytes);
  if (growth < 0 && retained + growth * guard <= kept) return kNever;
  return std::max(guard, SecondsFor(kept - retained, growth));
}

SlotForecast OfSlot(const ForecastInput& input, const ForecastWhatIf& what_if, const ForecastSlot& slot) {
  SlotForecast forecast;
  forecast.slot = slot;
  if (!slot.lost_cause.empty()) {
    forecast.seconds_to_invalidation = 0;
    forecast.cause = slot.lost_cause;
    forecast.survives = false;
    return forecast;
  }
  const bool goes_away = what_if.replica_off_seconds.has_value();
  const double growth = NetGrowth(input, slot, goes_away);
  forecast.growth_per_second = growth;
  const uint64_t most = input.limits.max_retained_bytes;
  forecast.headroom_bytes = most - std::min(most, slot.retained_bytes);
  const double retained_seconds = SecondsToRetained(input, slot, growth);
  forecast.headroom_seconds = OrNever(retained_seconds);

  double first = kNever;
  const auto consider = [&](double seconds, const char* cause) {
    if (seconds >= first) return;
    first = seconds;
    forecast.cause = cause;
  };
  consider(retained_seconds, "retained_bytes");
  consider(SecondsToIdle(input, slot, goes_away), "idle_timeout");
  consider(SecondsToDiskPressure(input, slot, growth), "disk_pressure");
  if (first == kNever) return forecast;
  forecast.seconds_to_invalidation = first;
  const double then = std::max(0.0, static_cast<double>(slot.retained_bytes) + growth * first);
  forecast.retained_bytes_then = static_cast<uint64_t>(std::round(std::min(then, 0x1p63)));
  forecast.survives = first > 0 && first >= what_if.replica_off_seconds.value_or(0);
  return forecast;
}

// The input as it would be.
ForecastInput Apply(const ForecastInput& input, const ForecastWhatIf& what_if) {
  ForecastInput changed = input;
  if (what_if.max_retained_bytes) changed.limits.max_retained_bytes = *what_if.max_retained_bytes;
  if (what_if.disk_bytes && input.disk) {
    const uint64_t used = input.disk->total_bytes - std::min(input.disk->total_bytes, input.disk->available_bytes);
    changed.disk->total_bytes = *what_if.disk_bytes;
    changed.disk->available_bytes = *what_if.disk_bytes - std::min(*what_if.disk_bytes, used);
  }
  return changed;
}

}  // namespace

Forecast MakeForecast(const ForecastInput& input, const ForecastWhatIf& what_if) {
  const ForecastInput changed = Apply(input, what_if);
  Forecast forecast;
  forecast.append = changed.append;
  forecast.measured_seconds = changed.measured_seconds;
  forecast.log_bytes = changed.log_bytes;
  forecast.kept_log_bytes = changed.kept_log_bytes;
  forecast.limits = changed.limits;
  for (const ForecastSlot& slot : changed.slots) forecast.slots.push_back(OfSlot(changed, what_if, slot));
  if (!changed.disk) return forecast;
  DiskForecast& disk = forecast.disk.emplace();
  disk.space = *changed.disk;
  disk.growth = changed.disk_growth;
  const std::optional<double> room = RoomToGuard(changed);
  if (room) disk.seconds_to_guard = OrNever(*room <= 0 ? 0 : SecondsFor(*room, DiskGrowth(changed)));
  const double available = static_cast<double>(changed.disk->available_bytes);
  disk.seconds_to_full = OrNever(available <= 0 ? 0 : SecondsFor(available, DiskGrowth(changed)));
  return forecast;
}

}  // namespace towline
