// slot forecast.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/status_table.h"

namespace towline::ctl {
namespace {

constexpr double kLongWindowSeconds = 15 * 60;

struct ForecastOptions {
  std::string name;
  uint64_t max_retained_bytes = 0;
  int64_t replica_off_us = 0;
  uint64_t disk_bytes = 0;
};

// What is taken as different, for people; empty = nothing.
std::string Assumptions(const v1::ForecastSlotsRequest& request) {
  std::vector<std::string> parts;
  if (request.has_max_retained_bytes()) {
    parts.push_back(absl::StrCat("a slot may hold ", FormatBytes(request.max_retained_bytes())));
  }
  if (request.has_replica_off_seconds()) {
    parts.push_back(
        absl::StrCat("each owner, one at a time, is away for ", FormatSeconds(request.replica_off_seconds())));
  }
  if (request.has_disk_bytes()) parts.push_back(absl::StrCat("the disk has ", FormatBytes(request.disk_bytes())));
  return absl::StrJoin(parts, "; ");
}

void PrintSlots(std::ostream& out, const v1::ForecastSlotsResponse& forecast) {
  if (forecast.slots().empty()) {
    out << "no slots\n";
    return;
  }
  Table table({"SLOT", "KIND", "STATE", "RETAINED", "DRAIN_1M", "DRAIN_15M", "HEADROOM", "INVALIDATED_IN", "CAUSE",
               "RETAINED_THEN", "SURVIVES"});
  for (const v1::SlotForecast& slot : forecast.slots()) {
    const Json json = ProtoToJson(slot);
    table.Add({slot.name(), EnumText(json["kind"]), EnumText(json["state"]), FormatBytes(slot.retained_bytes()),
               slot.has_drain_bytes_per_second_1m() ? FormatRate(slot.drain_bytes_per_second_1m()) : "-",
               slot.has_drain_bytes_per_second_15m() ? FormatRate(slot.drain_bytes_per_second_15m()) : "-",
               FormatBytes(slot.headroom_bytes()),
               FormatSecondsOrNever(slot.has_seconds_to_invalidation(), slot.seconds_to_invalidation()),
               slot.cause().empty() ? "-" : slot.cause(),
               slot.has_retained_bytes_then() ? FormatBytes(slot.retained_bytes_then()) : "-",
               slot.survives() ? "yes" : "NO"});
  }
  table.Print(out);
}

void PrintForecast(std::ostream& out, const v1::ForecastSlotsRequest& request,
                   const v1::ForecastSlotsResponse& forecast) {
  const std::string assumptions = Assumptions(request);
  if (!assumptions.empty()) out << "if        " << assumptions << "\n";
  out << "log       " << FormatBytes(forecast.log_bytes()) << " on disk, grows by "
      << FormatRate(forecast.append_bytes_per_second_1m()) << " (1 min), "
      << FormatRate(forecast.append_bytes_per_second_15m()) << " (15 min)";
  if (forecast.measured_seconds() < kLongWindowSeconds) {
    out << ", measured for only " << FormatSeconds(forecast.measured_seconds());
  }
  out << "\n";
  if (forecast.has_disk()) PrintDisk(out, forecast.disk());
  PrintSlots(out, forecast);
}

int RunForecast(Context& context, const ForecastOptions& options, const v1::ForecastSlotsRequest& request) {
  if (!options.name.empty()) {
    const absl::Status valid = ValidateName("slot name", options.name);
    if (!valid.ok()) return context.Fail(UsageError(GetErrorInfo(valid).message));
  }
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto forecast = (*client)->ForecastSlots(request);
  if (!forecast.ok()) return context.Fail(forecast.status());
  if (context.json()) {
    context.Print(ProtoToJson(*forecast));
  } else {
    PrintForecast(context.out(), request, *forecast);
  }
  if (Assumptions(request).empty()) return kExitOk;
  std::vector<std::string> lost;
  for (const v1::SlotForecast& slot : forecast->slots()) {
    if (!slot.survives()) lost.push_back(absl::StrCat(slot.name(), " (", slot.cause(), ")"));
  }
  if (lost.empty()) return kExitOk;
  (void)context.FlushOut();
  context.Fail(MakeError(absl::StatusCode::kUnavailable, "slots_lost",
                         absl::StrCat("does not survive: ", absl::StrJoin(lost, ", "))));
  return kExitUnhealthy;
}

}  // namespace

void AddForecastCommand(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<ForecastOptions>();
  CLI::App* forecast = slot.add_subcommand(
      "forecast", "Say when slots will be invalidated and the disk will be full, as things are or as they might be");
  forecast->add_option("name", options->name, "Only this slot");
  CLI::Option* max_retained =
      AddBytes(*forecast, "--max-retained", &options->max_retained_bytes, "As if one slot could hold back so much log");
  CLI::Option* replica_off = AddDuration(*forecast, "--replica-off", &options->replica_off_us,
                                         "As if the owner of each slot, one at a time, went away for so long");
  CLI::Option* disk = AddBytes(*forecast, "--disk", &options->disk_bytes,
                               "As if the disk had this size, and as much of it were in use as now");
  forecast->footer(
      "With one of the options, exit code 3 if a slot is lost, would be lost at once, or while its owner is away.\n"
      "Examples:\n  towctl slot forecast\n  towctl slot forecast r1 --replica-off 6h\n"
      "  towctl slot forecast --max-retained 4GiB --disk 100GB --replica-off 30m");
  OnSelected(*forecast, selection, [=](Context& context) {
    v1::ForecastSlotsRequest request;
    request.set_name(options->name);
    if (max_retained->count() > 0) request.set_max_retained_bytes(options->max_retained_bytes);
    if (replica_off->count() > 0) request.set_replica_off_seconds(static_cast<double>(options->replica_off_us) * 1e-6);
    if (disk->count() > 0) request.set_disk_bytes(options->disk_bytes);
    return RunForecast(context, *options, request);
  });
}

}  // namespace towline::ctl
