// What a drill's history says: losses, duplicates, times, and whether they are within the thresholds. Pure functions.

#ifndef TOWLINE_CTL_DRILL_REPORT_H_
#define TOWLINE_CTL_DRILL_REPORT_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "client/proto_json.h"
#include "ctl/drill_history.h"

namespace towline::ctl {

// The report as it is kept (docs/guides/drills.md, "The report").
Json MakeDrillReport(const DrillHistory& history);

// INVALID_ARGUMENT, reason not_a_report.
absl::Status CheckDrillReport(const Json& report);

// For people. Requires a report.
void PrintDrillReport(std::ostream& out, const Json& report);

// 0 = passed, 3 = not. Requires a report.
int DrillExitCode(const Json& report);

// The file of node_exporter's textfile collector with this report in it: `before` is its content until now, of which
// the other scenarios stay, and this one's last success if it did not pass. Requires a report.
std::string DrillMetrics(const Json& report, absl::string_view before);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_REPORT_H_
