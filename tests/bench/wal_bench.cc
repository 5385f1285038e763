// Measures the spool beside the disk and the processor that it runs on. Exit code 0 whatever the figures are, 1 on
// errors: a benchmark is no test.

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include <CLI/CLI.hpp>

#include "common/error.h"
#include "common/file_system.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"

namespace towline::bench {
namespace {

struct Part {
  const char* name;
  const char* what;
  absl::Status (*measure)(const Settings& settings, Report* report);
};

constexpr Part kParts[] = {
    {"append", "append + sync beside plain pwrite + fdatasync", MeasureAppend},
    {"cpu", "processor time of a record, from the payload to the kernel", MeasureCpu},
    {"seek", "seek by LSN and by time, cold and warm", MeasureSeek},
    {"open", "open time and memory by number of segments", MeasureOpen},
    {"read", "cursors beside plain pread", MeasureRead},
};

std::string Usage() {
  std::string text = "Measures the write-ahead log. Parts (default: all):";
  for (const Part& part : kParts) text += std::string("\n  ") + part.name + "  " + part.what;
  return text;
}

absl::Status Run(const Settings& settings, const std::vector<std::string>& wanted, Report* report) {
  for (const Part& part : kParts) {
    bool chosen = wanted.empty();
    for (const std::string& name : wanted) chosen = chosen || name == part.name;
    if (!chosen) continue;
    report->BeginPart(part.name, part.what);
    TOWLINE_RETURN_IF_ERROR(part.measure(settings, report));
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Settings settings;
  settings.directory = "towline_wal_bench.tmp";
  std::vector<std::string> wanted;
  std::string json;
  bool is_long = false;
  bool is_smoke = false;
  std::vector<std::string> names;
  for (const Part& part : kParts) names.emplace_back(part.name);
  CLI::App app(Usage(), "towline_wal_bench");
  app.add_option("parts", wanted, "Parts to run")->check(CLI::IsMember(names));
  app.add_option("--directory", settings.directory, "Where to measure; must not exist, is removed at the end")
      ->capture_default_str();
  app.add_option("--json", json, "Write the figures to this file too");
  CLI::Option* const smoke = app.add_flag("--smoke", is_smoke, "Tiny sizes, to see that everything runs");
  app.add_flag("--long", is_long, "Long forms: 100 million records (7 GB), 4,096 segments")->excludes(smoke);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  }
  if (is_smoke) settings.form = Form::kSmoke;
  if (is_long) settings.form = Form::kLong;

  FileSystem& fs = *PosixFileSystem();
  if (Exists(fs, settings.directory)) {
    std::fprintf(stderr, "towline_wal_bench: %s exists already\n", settings.directory.c_str());
    return 1;
  }
  Report report;
  absl::Status status = fs.CreateDirectory(settings.directory);
  if (status.ok()) status = Run(settings, wanted, &report);
  status.Update(RemoveAll(fs, settings.directory));
  if (!json.empty()) status.Update(report.WriteJson(json));
  if (status.ok()) return 0;
  std::fprintf(stderr, "towline_wal_bench: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace towline::bench

int main(int argc, char** argv) {
  // Distribution builds of Abseil check lock orders by default, which costs more than what is measured here.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return towline::bench::Main(argc, argv);
}
