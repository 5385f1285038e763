#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

#include "ctl/drill_report.h"

namespace towline::ctl {
namespace {

struct Family {
  const char* name;
  const char* help;
};

constexpr Family kLastRun = {"towline_drill_last_run_timestamp_seconds", "Unix time at which the last drill began."};
constexpr Family kLastSuccess = {"towline_drill_last_success_timestamp_seconds",
                                 "Unix time at which the last drill that passed began."};
constexpr Family kPassed = {"towline_drill_passed", "1 if the last drill passed."};
constexpr Family kRto = {
    "towline_drill_rto_seconds",
    "Time from the injection of the last drill to each phase, and the RTO as a whole (phase rto)."};
constexpr Family kRpo = {"towline_drill_rpo_records", "Acknowledged writes that the last drill lost."};
constexpr const Family* kFamilies[] = {&kLastRun, &kLastSuccess, &kPassed, &kRto, &kRpo};

// The lines of one family, each "name{labels} value".
using Samples = std::map<std::string, std::vector<std::string>>;

std::string Sample(const Family& family, const std::string& labels, double value) {
  return absl::StrFormat("%s{%s} %.17g", family.name, labels, value);
}

}  // namespace

std::string DrillMetrics(const Json& report, absl::string_view before) {
  const std::string own = absl::StrCat("scenario=\"", report["scenario"].get<std::string>(), "\"");
  const bool passed = report["passed"].get<bool>();
  Samples samples;
  for (const absl::string_view line : absl::StrSplit(before, '\n', absl::SkipEmpty())) {
    if (absl::StartsWith(line, "#")) continue;
    const std::string name(line.substr(0, line.find('{')));
    const bool replaced = absl::StrContains(line, own) && (passed || name != kLastSuccess.name);
    if (!replaced) samples[name].emplace_back(line);
  }
  const double started = report["started_ms"].get<double>() / 1000;
  samples[kLastRun.name].push_back(Sample(kLastRun, own, started));
  if (passed) samples[kLastSuccess.name].push_back(Sample(kLastSuccess, own, started));
  samples[kPassed.name].push_back(Sample(kPassed, own, passed ? 1 : 0));
  for (const Json& phase : report["phases"]) {
    const std::string labels = absl::StrCat(own, ",phase=\"", phase["phase"].get<std::string>(), "\"");
    samples[kRto.name].push_back(Sample(kRto, labels, phase["at_ms"].get<double>() / 1000));
  }
  samples[kRto.name].push_back(Sample(kRto, own + ",phase=\"rto\"", report["rto_ms"].get<double>() / 1000));
  for (const char* level : {"local", "replicas"}) {
    const std::string labels = absl::StrCat(own, ",level=\"", level, "\"");
    samples[kRpo.name].push_back(Sample(kRpo, labels, report["rpo_records"][level].get<double>()));
  }
  std::string text;
  for (const Family* family : kFamilies) {
    absl::StrAppend(&text, "# HELP ", family->name, " ", family->help, "\n# TYPE ", family->name, " gauge\n");
    for (const std::string& line : samples[family->name]) absl::StrAppend(&text, line, "\n");
  }
  return text;
}

}  // namespace towline::ctl
