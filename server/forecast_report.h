// Forecasts as messages: what will become of the slots and of the disk.

#ifndef TOWLINE_SERVER_FORECAST_REPORT_H_
#define TOWLINE_SERVER_FORECAST_REPORT_H_

#include <string>

#include "absl/status/status.h"

#include "primary/slot_forecast.h"
#include "server/config.h"
#include "server/node.h"
#include "towline/v1/slot_service.pb.h"
#include "towline/v1/types.pb.h"

namespace towline {

// Answers SlotService.ForecastSlots. INVALID_ARGUMENT, reason invalid_what_if; NOT_FOUND, reason slot_not_found;
// UNAVAILABLE, reason rates_not_measured.
absl::Status ReportForecast(Node& node, const v1::ForecastSlotsRequest& request, v1::ForecastSlotsResponse* response);

void FillDisk(const DiskForecast& disk, const NodeConfig& config, v1::DiskStatus* out);

// NOT_FOUND, reason slot_not_found.
absl::Status SlotNotFoundError(const std::string& name);

}  // namespace towline

#endif  // TOWLINE_SERVER_FORECAST_REPORT_H_
