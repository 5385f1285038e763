#include "server/forecast_report.h"

#include <cmath>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "server/status_report.h"

namespace towline {
namespace {

absl::Status InvalidWhatIf(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_what_if", message);
}

absl::StatusOr<ForecastWhatIf> Decode(const v1::ForecastSlotsRequest& request) {
  ForecastWhatIf what_if;
  if (request.has_max_retained_bytes()) {
    if (request.max_retained_bytes() == 0) return InvalidWhatIf("max_retained_bytes is 0; it must be at least 1");
    what_if.max_retained_bytes = request.max_retained_bytes();
  }
  if (request.has_replica_off_seconds()) {
    const double seconds = request.replica_off_seconds();
    if (!std::isfinite(seconds) || seconds <= 0) {
      return InvalidWhatIf(absl::StrCat("replica_off_seconds is ", seconds, "; it must be above 0 and finite"));
    }
    what_if.replica_off_seconds = seconds;
  }
  if (request.has_disk_bytes()) {
    if (request.disk_bytes() == 0) return InvalidWhatIf("disk_bytes is 0; it must be at least 1");
    what_if.disk_bytes = request.disk_bytes();
  }
  return what_if;
}

void FillSlotForecast(const SlotForecast& forecast, v1::SlotForecast* out) {
  const ForecastSlot& slot = forecast.slot;
  out->set_name(slot.name);
  out->set_kind(ToProto(slot.kind));
  out->set_state(ToProto(slot.state));
  out->set_retained_bytes(slot.retained_bytes);
  if (slot.drain) {
    out->set_drain_bytes_per_second_1m(slot.drain->per_second_1m);
    out->set_drain_bytes_per_second_15m(slot.drain->per_second_15m);
  }
  out->set_growth_bytes_per_second(forecast.growth_per_second);
  out->set_headroom_bytes(forecast.headroom_bytes);
  if (forecast.headroom_seconds) out->set_headroom_seconds(*forecast.headroom_seconds);
  if (!slot.has_session) out->set_idle_seconds(slot.idle_seconds);
  if (forecast.seconds_to_invalidation) out->set_seconds_to_invalidation(*forecast.seconds_to_invalidation);
  out->set_cause(forecast.cause);
  if (forecast.retained_bytes_then) out->set_retained_bytes_then(*forecast.retained_bytes_then);
  out->set_survives(forecast.survives);
}

}  // namespace

absl::Status SlotNotFoundError(const std::string& name) {
  return MakeError(absl::StatusCode::kNotFound, "slot_not_found",
                   absl::StrCat("there is no slot \"", Printable(name), "\""), "list them with: towctl slot list");
}

absl::Status ReportForecast(Node& node, const v1::ForecastSlotsRequest& request, v1::ForecastSlotsResponse* response) {
  TOWLINE_ASSIGN_OR_RETURN(const ForecastWhatIf what_if, Decode(request));
  const Forecast forecast = node.source().ForecastSlots(what_if);
  for (const SlotForecast& slot : forecast.slots) {
    if (request.name().empty() || slot.slot.name == request.name()) FillSlotForecast(slot, response->add_slots());
  }
  if (!request.name().empty() && response->slots().empty()) return SlotNotFoundError(request.name());
  if (!forecast.append) {
    return MakeError(absl::StatusCode::kUnavailable, "rates_not_measured",
                     "the growth of the log is known after two looks at it, one every slots.persist_interval",
                     "retry in a few seconds");
  }
  response->set_append_bytes_per_second_1m(forecast.append->per_second_1m);
  response->set_append_bytes_per_second_15m(forecast.append->per_second_15m);
  response->set_measured_seconds(forecast.measured_seconds);
  response->set_log_bytes(forecast.log_bytes);
  response->set_kept_log_bytes(forecast.kept_log_bytes);
  response->set_max_retained_bytes(forecast.limits.max_retained_bytes);
  response->set_consumer_idle_seconds(static_cast<double>(forecast.limits.consumer_idle_micros) * 1e-6);
  response->set_replica_idle_seconds(static_cast<double>(forecast.limits.replica_idle_micros) * 1e-6);
  if (forecast.disk) FillDisk(*forecast.disk, node.config(), response->mutable_disk());
  return absl::OkStatus();
}

void FillDisk(const DiskForecast& disk, const NodeConfig& config, v1::DiskStatus* out) {
  out->set_total_bytes(disk.space.total_bytes);
  out->set_available_bytes(disk.space.available_bytes);
  out->set_used_ratio(disk.space.used_ratio());
  out->set_warn_ratio(config.disk_warn_ratio);
  out->set_guard_ratio(config.disk_guard_ratio);
  if (disk.growth) {
    out->set_growth_bytes_per_second_1m(disk.growth->per_second_1m);
    out->set_growth_bytes_per_second_15m(disk.growth->per_second_15m);
  }
  if (disk.seconds_to_guard) out->set_seconds_to_guard(*disk.seconds_to_guard);
  if (disk.seconds_to_full) out->set_seconds_to_full(*disk.seconds_to_full);
}

}  // namespace towline
