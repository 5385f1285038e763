// wal stat, verify, and the arguments of all wal verbs: a node's log read from its directory. Nothing is locked or
// modified, so they work beside a running node; what it is just writing shows as a tail, never as damage.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/control.h"
#include "common/error.h"
#include "common/file_system.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/wal_records.h"
#include "wal/inspect.h"
#include "wal/quarantine_reader.h"

namespace towline::ctl {
namespace {

// DATA_DIR/gen/<n>/wal of the live or the given generation.
absl::StatusOr<std::string> WalDirectory(const WalOptions& options) {
  FileSystem& fs = *PosixFileSystem();
  uint64_t generation = options.generation;
  if (generation == 0) {
    auto control = ControlFile::Open(fs, options.data_dir);
    if (!control.ok()) return Annotate(control.status(), "--generation N reads a log without the control file");
    if (!(*control)->exists()) {
      return MakeError(absl::StatusCode::kNotFound, "no_control",
                       absl::StrCat(options.data_dir, " has no control file, so it is not a node's data directory"),
                       "give the directory of towlined's --data-dir, or --generation N");
    }
    generation = (*control)->Get().generation;
    if (generation == 0) {
      return MakeError(absl::StatusCode::kNotFound, "no_generation", "the node has no live generation yet");
    }
  }
  std::string directory = JoinPath(JoinPath(JoinPath(options.data_dir, "gen"), absl::StrCat(generation)), "wal");
  if (!Exists(fs, directory)) {
    return MakeError(absl::StatusCode::kNotFound, "no_such_generation", absl::StrCat(directory, " does not exist"));
  }
  return directory;
}

Json SegmentJson(const wal::SegmentInfo& segment) {
  Json json = Json::object();
  json["file"] = segment.file;
  json["cluster_id"] = segment.cluster_id;
  json["generation"] = segment.generation;
  json["first_lsn"] = segment.first_lsn;
  json["last_lsn"] = segment.last_lsn;
  json["records"] = segment.records;
  json["file_bytes"] = segment.file_bytes;
  json["used_bytes"] = segment.used_bytes;
  json["sealed"] = segment.sealed;
  json["index_present"] = segment.index_present;
  json["first_time_us"] = segment.records > 0 ? Json(segment.first_time_us) : Json(nullptr);
  json["last_time_us"] = segment.records > 0 ? Json(segment.last_time_us) : Json(nullptr);
  json["damage"] = segment.damage.empty() ? Json(nullptr) : Json(segment.damage);
  return json;
}

Json QuarantineJson(const std::vector<wal::QuarantineFile>& files) {
  Json list = Json::array();
  for (const wal::QuarantineFile& file : files) {
    Json json = Json::object();
    json["file"] = file.path;
    json["bytes"] = file.bytes;
    json["kind"] = file.torn ? "torn" : "diverged";
    list.push_back(std::move(json));
  }
  return list;
}

int RunStat(Context& context, const WalOptions& options, const std::string& directory) {
  const auto info = wal::InspectSpool(*PosixFileSystem(), directory);
  if (!info.ok()) return context.Fail(info.status());
  const auto quarantine = wal::ListQuarantine(*PosixFileSystem(), QuarantineOf(options));
  if (!quarantine.ok()) return context.Fail(quarantine.status());
  int code = kExitOk;
  uint64_t records = 0;
  uint64_t used_bytes = 0;
  Json segments = Json::array();
  Table table({"SEGMENT", "FIRST_LSN", "LAST_LSN", "RECORDS", "USED", "SEALED", "INDEX"});
  for (const wal::SegmentInfo& segment : info->segments) {
    records += segment.records;
    used_bytes += segment.used_bytes;
    if (!segment.damage.empty()) code = kExitUnhealthy;
    segments.push_back(SegmentJson(segment));
    table.Add({segment.file, absl::StrCat(segment.first_lsn), absl::StrCat(segment.last_lsn),
               absl::StrCat(segment.records), FormatBytes(segment.used_bytes), segment.sealed ? "yes" : "no",
               segment.index_present ? "yes" : "no"});
  }
  if (!context.json()) {
    context.out() << directory << "\n"
                  << records << " records, " << FormatBytes(used_bytes) << " in " << info->segments.size()
                  << " segments, " << info->spares << " spares, tail " << info->tail_bytes << " bytes\n";
    table.Print(context.out());
    for (const wal::SegmentInfo& segment : info->segments) {
      if (!segment.damage.empty()) context.out() << "DAMAGED: " << segment.damage << "\n";
    }
    for (const wal::QuarantineFile& file : *quarantine) {
      context.out() << "quarantine: " << file.path << ", " << file.bytes << " bytes\n";
    }
    return code;
  }
  Json result = Json::object();
  result["directory"] = directory;
  result["first_lsn"] = info->segments.empty() ? 0 : info->segments.front().first_lsn;
  result["last_lsn"] = info->segments.empty() ? 0 : info->segments.back().last_lsn;
  result["records"] = records;
  result["used_bytes"] = used_bytes;
  result["spares"] = info->spares;
  result["tail_bytes"] = info->tail_bytes;
  result["segments"] = std::move(segments);
  result["quarantine"] = QuarantineJson(*quarantine);
  context.Print(result);
  return code;
}

// What the control file knows to be durable in the generation; 0 if it says nothing about it.
Lsn DurableLsn(const WalOptions& options) {
  const auto control = ControlFile::Open(*PosixFileSystem(), options.data_dir);
  if (!control.ok() || !(*control)->exists()) return 0;
  const Control values = (*control)->Get();
  return options.generation == 0 || options.generation == values.generation ? values.watermark : 0;
}

int RunVerify(Context& context, const WalOptions& options, const std::string& directory) {
  // Read first: of a running node the log is then at least as long.
  const Lsn durable = DurableLsn(options);
  const auto report = wal::VerifySpool(*PosixFileSystem(), directory, durable);
  if (!report.ok()) return context.Fail(report.status());
  const int code = report->damages.empty() ? kExitOk : kExitUnhealthy;
  if (!context.json()) {
    for (const wal::Damage& damage : report->damages) {
      context.out() << "damaged: " << damage.file << " offset " << damage.offset << " lsn "
                    << (damage.lsn == 0 ? "not known" : absl::StrCat(damage.lsn)) << ": " << damage.what << "\n";
    }
    context.out() << (report->damages.empty() ? "ok: " : "DAMAGED: ") << report->records << " records, lsn "
                  << report->first_lsn << " to " << report->last_lsn << ", " << FormatBytes(report->bytes) << " in "
                  << report->segments << " segments, " << report->damages.size() << " damages\n";
    return code;
  }
  Json damages = Json::array();
  for (const wal::Damage& damage : report->damages) {
    Json json = Json::object();
    json["file"] = damage.file;
    json["offset"] = damage.offset;
    json["lsn"] = damage.lsn == 0 ? Json(nullptr) : Json(damage.lsn);
    json["what"] = damage.what;
    damages.push_back(std::move(json));
  }
  Json result = Json::object();
  result["directory"] = directory;
  result["ok"] = report->damages.empty();
  result["segments"] = report->segments;
  result["records"] = report->records;
  result["bytes"] = report->bytes;
  result["first_lsn"] = report->first_lsn;
  result["last_lsn"] = report->last_lsn;
  result["damages"] = std::move(damages);
  context.Print(result);
  return code;
}

using WalVerb = std::function<int(Context&, const WalOptions&, const std::string& directory)>;

CLI::App* AddVerb(CLI::App& wal, Selection& selection, const std::string& name, const std::string& help,
                  const std::shared_ptr<WalOptions>& options, WalVerb run) {
  CLI::App* verb = wal.add_subcommand(name, help);
  verb->add_option("--data-dir", options->data_dir, "Data directory of the node")->required();
  AddNumber(*verb, "--generation", &options->generation, "Read this generation instead of the live one", 1);
  OnSelected(*verb, selection, [options, run = std::move(run)](Context& context) {
    const auto directory = WalDirectory(*options);
    return directory.ok() ? run(context, *options, *directory) : context.Fail(directory.status());
  });
  return verb;
}

}  // namespace

void AddWalCommands(CLI::App& app, Selection& selection) {
  CLI::App* wal = app.add_subcommand("wal", "Read a node's log from its directory: stat, dump, verify, seek");
  wal->require_subcommand(1);
  wal->footer("They never lock or modify anything. Example:\n  towctl wal verify --data-dir /var/lib/towline");

  AddVerb(*wal, selection, "stat", "Show segments and quarantine; exit code 3 if a header or footer is damaged",
          std::make_shared<WalOptions>(), RunStat);
  AddVerb(*wal, selection, "verify", "Check everything; exit code 3 if something is damaged",
          std::make_shared<WalOptions>(), RunVerify);

  auto dump_options = std::make_shared<WalOptions>();
  CLI::App* dump = AddVerb(*wal, selection, "dump", "Print records as JSON Lines", dump_options, RunDump);
  AddNumber(*dump, "--from", &dump_options->from, "First LSN (default: the first retained)", 1);
  AddNumber(*dump, "--to", &dump_options->to, "Last LSN (default: the end)", 1);
  dump->add_option("--since", dump_options->since,
                   "Commit time at or after: 2026-11-21T14:00:00Z, Unix microseconds, or how long ago (15m)");
  dump->add_option("--until", dump_options->until, "Commit time before");
  dump->add_flag("--quarantine", dump_options->quarantine,
                 "Print what recovery cut off and what the node gave up instead: DATA_DIR/quarantine");

  auto seek_options = std::make_shared<WalOptions>();
  CLI::App* seek = AddVerb(*wal, selection, "seek", "Find one record", seek_options, RunSeek);
  CLI::App* position = seek->add_option_group("position", "Which record; one of the two");
  AddNumber(*position, "lsn", &seek_options->lsn, "The LSN", 1);
  position->add_option("--time", seek_options->time, "The first record with this commit time or a later one");
  position->require_option(1);
}

}  // namespace towline::ctl
