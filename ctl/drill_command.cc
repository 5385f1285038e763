// drill run, drill report: rehearsals of failures, measured.

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/file_system.h"
#include "common/names.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/child_process.h"
#include "ctl/drill_guards.h"
#include "ctl/drill_report.h"
#include "ctl/drill_run.h"

namespace towline::ctl {
namespace {

using Settings = std::map<std::string, std::string>;

struct Scenario {
  const char* name;
  const char* help;
  DrillScenario run;
  bool needs_local;    // it ends or cuts off processes
  bool relay;          // the primary is behind a relay
  bool primary_stays;  // then nothing at all may be lost
  uint64_t value_bytes;
  Settings settings;  // of all nodes, besides kSettings
};

const Settings& CommonSettings() {
  static const Settings settings = {{"start.peer_wait", "1s"},           {"rewind.checkpoint_interval", "1s"},
                                    {"slots.persist_interval", "100ms"}, {"wal.segment_bytes", "1MiB"},
                                    {"store.cache_bytes", "16MiB"},      {"disk.guard_ratio", "0"}};
  return settings;
}

const std::vector<Scenario>& Scenarios() {
  static const std::vector<Scenario> scenarios = {
      {"kill-primary",
       "The primary is killed; a replica is promoted; the old primary comes back",
       RunKillPrimary,
       true,
       false,
       false,
       100,
       {}},
      {"partition",
       "The primary is cut off while it takes writes; a replica is promoted; the network heals",
       RunPartition,
       true,
       true,
       false,
       100,
       {}},
      {"switchover", "A replica takes over with the help of the primary", RunSwitchover, false, false, true, 100, {}},
      {"slot-loss",
       "A replica is away for longer than its slot may hold the log",
       RunSlotLoss,
       true,
       false,
       true,
       8000,
       {{"wal.keep_bytes", "1MiB"},
        {"wal.spare_segments", "1"},
        {"slots.max_retained_bytes", "4MiB"},
        {"bootstrap.replay_max_bytes", "1MiB"},
        {"store.flush_bytes", "2MiB"},
        {"store.flush_interval", "1s"}}},
      {"full-resync",
       "The data directory of a replica is wiped",
       RunFullResync,
       true,
       false,
       true,
       1000,
       {{"bootstrap.replay_max_bytes", "1B"}}},
      {"stall", "A replica stands still", RunStall, true, false, true, 100, {{"replication.stall_timeout", "2s"}}},
  };
  return scenarios;
}

const Scenario* Find(const std::string& name) {
  const auto& all = Scenarios();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Scenario& each) { return name == each.name; });
  return found == all.end() ? nullptr : &*found;
}

// Where the report goes: the file, or a file of the usual name in the directory.
std::string ReportPath(const DrillOptions& options, const DrillHistory& history) {
  const std::string name = absl::StrCat(
      "towline-drill-", options.scenario, "-",
      absl::FormatTime("%Y%m%dT%H%M%SZ", absl::FromUnixMillis(history.started_ms), absl::UTCTimeZone()), ".json");
  if (options.report.empty()) return name;
  const bool directory = absl::EndsWith(options.report, "/") || PosixFileSystem()->List(options.report).ok();
  return directory ? JoinPath(options.report, name) : options.report;
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  const size_t slash = path.rfind('/');
  return WriteFileDurably(*PosixFileSystem(), ParentDirectory(path),
                          slash == std::string::npos ? path : path.substr(slash + 1), text);
}

absl::Status WriteMetrics(const std::string& path, const Json& report) {
  const auto before = ReadFile(*PosixFileSystem(), path);
  if (!before.ok() && !absl::IsNotFound(before.status())) return before.status();
  return WriteTextFile(path, DrillMetrics(report, before.ok() ? *before : ""));
}

// Keeps and prints what came out; returns the exit code.
int Finish(Context& context, const DrillOptions& options, const DrillHistory& history) {
  const Json report = MakeDrillReport(history);
  const std::string path = ReportPath(options, history);
  absl::Status status = WriteTextFile(path, JsonText(report, 2) + "\n");
  if (status.ok() && !options.metrics_file.empty()) status = WriteMetrics(options.metrics_file, report);
  if (context.json()) {
    context.Print(report);
  } else {
    PrintDrillReport(context.out(), report);
  }
  if (!status.ok()) return context.Fail(status);
  context.err() << "report: " << path << "\n";
  return DrillExitCode(report);
}

// Runs the scenario on nodes that are ready.
int RunOn(Context& context, const DrillOptions& options, const Scenario& scenario, LocalCluster* local,
          std::vector<DrillNode> nodes) {
  DrillLoadOptions load;
  load.id = HexId(NewId(*SystemRng())).substr(0, 8);
  load.value_bytes = scenario.value_bytes;
  for (const DrillNode& node : nodes) load.endpoints.push_back(node.endpoint);
  if (local != nullptr) load.local_endpoint = local->nodes()[0].direct_endpoint;
  DrillRun run(options, context.interrupt(), local, std::move(nodes), load);
  if (options.keep) run.history().directory = local->directory();
  if (scenario.primary_stays && !options.judge_local) run.history().thresholds.rpo_local = 0;
  context.err() << "drill " << load.id << ": " << scenario.name << "\n";
  absl::Status status = run.Begin();
  if (status.ok()) status = run.End(scenario.run(run));
  if (local == nullptr) {
    const absl::Status deleted = run.DeleteKeys();
    if (!deleted.ok()) run.history().failures.push_back(absl::StrCat("its keys are left: ", deleted.message()));
  }
  if (!status.ok()) return context.Fail(status);
  if (options.keep) local->Keep();
  const int code = Finish(context, options, run.history());
  if (options.keep) {
    context.err() << "the cluster is kept in " << local->directory() << "\n";
    for (LocalNode& node : local->nodes()) {
      context.err() << "  " << node.node_id << "  pid " << node.process->pid() << "  " << node.endpoint << "\n";
    }
  }
  return code;
}

int RunLocal(Context& context, const DrillOptions& options, const Scenario& scenario) {
  LocalClusterOptions cluster_options;
  cluster_options.replicas = static_cast<int>(options.replicas);
  cluster_options.program = options.program.empty() ? JoinPath(ProgramDirectory(), "towlined") : options.program;
  cluster_options.relay = scenario.relay;
  cluster_options.ends_with_us = !options.keep;
  cluster_options.settings = scenario.settings;
  cluster_options.settings.insert(CommonSettings().begin(), CommonSettings().end());
  const auto cluster = LocalCluster::Start(cluster_options, context.interrupt());
  if (!cluster.ok()) return context.Fail(cluster.status());
  std::vector<DrillNode> nodes;
  for (const LocalNode& node : (*cluster)->nodes()) nodes.push_back({node.node_id, node.endpoint});
  return RunOn(context, options, scenario, cluster->get(), std::move(nodes));
}

int RunNamed(Context& context, const DrillOptions& options, const Scenario& scenario) {
  if (scenario.needs_local) {
    return context.Fail(
        MakeError(absl::StatusCode::kFailedPrecondition, "needs_local",
                  absl::StrCat("drill ", scenario.name,
                               " ends processes or cuts connections, which towctl can do only to nodes that "
                               "it has started itself"),
                  "add --local; on a cluster that exists only switchover can run"));
  }
  auto nodes = GuardCluster(context.options().endpoint, context.options().timeout_us, options.i_mean_it);
  if (!nodes.ok()) return context.Fail(nodes.status());
  const auto named =
      std::find_if(nodes->begin() + 1, nodes->end(), [&](const DrillNode& node) { return node.node_id == options.to; });
  if (!options.to.empty() && named == nodes->end()) {
    return context.Fail(MakeError(absl::StatusCode::kNotFound, "member_not_found",
                                  absl::StrCat("the cluster has no replica ", Printable(options.to))));
  }
  return RunOn(context, options, scenario, nullptr, *std::move(nodes));
}

int RunDrill(Context& context, const DrillOptions& options) {
  const Scenario* const scenario = Find(options.scenario);
  const bool restarts_replicas = options.scenario == "kill-primary";
  if (options.replicas_down && !restarts_replicas)
    return context.Fail(UsageError("--replicas-down is for kill-primary"));
  if (options.keep && (!options.local || scenario->relay)) {
    return context.Fail(UsageError("--keep needs --local, and partition cannot be kept: its relay ends with towctl"));
  }
  return options.local ? RunLocal(context, options, *scenario) : RunNamed(context, options, *scenario);
}

int RunReport(Context& context, const std::string& path) {
  const auto text = ReadFile(*PosixFileSystem(), path);
  if (!text.ok()) return context.Fail(text.status());
  const Json report = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const absl::Status valid = CheckDrillReport(report);
  if (!valid.ok()) return context.Fail(Annotate(valid, path));
  if (context.json()) {
    context.Print(report);
  } else {
    PrintDrillReport(context.out(), report);
  }
  return DrillExitCode(report);
}

void AddRun(CLI::App& drill, Selection& selection) {
  auto options = std::make_shared<DrillOptions>();
  CLI::App* run = drill.add_subcommand("run", "Make a failure happen and measure what it costs");
  std::vector<std::string> names;
  std::string footer = "Scenarios:\n";
  for (const Scenario& scenario : Scenarios()) {
    names.emplace_back(scenario.name);
    absl::StrAppend(&footer, "  ", scenario.name, std::string(14 - names.back().size(), ' '), scenario.help, "\n");
  }
  run->add_option("scenario", options->scenario, absl::StrJoin(names, " | "))->required()->check(CLI::IsMember(names));
  CLI::Option* local = run->add_flag("--local", options->local, "Start a throw-away cluster on this machine");
  AddNumber(*run, "--replicas", &options->replicas, "With --local: so many (2)", 2, 8)->needs(local);
  AddDuration(*run, "--seconds-before", &options->before_us, "Write for so long before anything happens (2s)");
  AddDuration(*run, "--seconds-after", &options->after_us, "... and behind it (1s)");
  AddNumber(*run, "--rpo-max", &options->rpo_max, "Writes at level replicas that may be lost (0)");
  CLI::Option* rpo_local =
      AddNumber(*run, "--rpo-max-local", &options->rpo_max_local,
                "Writes at level local that may be lost (any number if the primary is lost, else 0)");
  AddDuration(*run, "--rto-max", &options->rto_max_us, "Longest time without service (30s)");
  AddDuration(*run, "--phase-timeout", &options->phase_timeout_us, "Give up a phase after this (60s)");
  run->add_flag("--replicas-down", options->replicas_down,
                "kill-primary: the replicas are down before, so that writes at level local are lost");
  run->add_option("--to", options->to, "switchover: node id of the next primary (the one that holds most)");
  run->add_flag("--and-back", options->and_back, "switchover: and back to the old primary");
  run->add_option("--i-mean-it", options->i_mean_it, "Without --local: id of the cluster at --endpoint");
  run->add_option("--towlined", options->program, "With --local: the program (towlined beside towctl)");
  run->add_option("--report", options->report, "File or directory of the report (./towline-drill-SCENARIO-TIME.json)");
  run->add_option("--metrics-file", options->metrics_file, "Keep metrics here, for node_exporter's textfile collector");
  run->add_flag("--keep", options->keep, "With --local: leave the cluster running");
  run->footer(absl::StrCat(footer,
                           "Examples:\n  towctl drill run kill-primary --local\n"
                           "  towctl drill run switchover --and-back --i-mean-it CLUSTER_ID --rto-max 2s\n"
                           "Exit codes: 0 passed, 3 not passed, 4 refused, 1 the drill itself did not work."));
  OnSelected(*run, selection, [options, rpo_local](Context& context) {
    options->judge_local = rpo_local->count() > 0;
    return RunDrill(context, *options);
  });
}

}  // namespace

void AddDrillCommands(CLI::App& app, Selection& selection) {
  CLI::App* drill = app.add_subcommand("drill", "Rehearse failures: what is lost, how long it takes");
  drill->require_subcommand(1);
  AddRun(*drill, selection);
  auto path = std::make_shared<std::string>();
  CLI::App* report = drill->add_subcommand("report", "Print a report that was kept; exit code as of the drill");
  report->add_option("file", *path, "Report of drill run")->required();
  OnSelected(*report, selection, [path](Context& context) { return RunReport(context, *path); });
}

}  // namespace towline::ctl
