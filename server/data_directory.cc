#include "server/data_directory.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/data_layout.h"
#include "common/error.h"
#include "common/history.h"
#include "replica/log_history.h"
#include "wal/inspect.h"

namespace towline {
namespace {

// The directory, made if need be, with its name durable: a power loss must not take it away with all that is in it.
absl::Status MakeDataDirectory(FileSystem& fs, const std::string& directory) {
  if (Exists(fs, directory)) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(directory));
  const size_t end = directory.find_last_not_of('/');
  const size_t slash = directory.rfind('/', end);
  const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : directory.substr(0, slash);
  return fs.SyncDirectory(parent);
}

absl::StatusOr<std::unique_ptr<File>> TakeLock(FileSystem& fs, const std::string& directory) {
  if (const absl::Status made = MakeDataDirectory(fs, directory); !made.ok()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "data_dir_unusable",
                     absl::StrCat("cannot create ", directory, ": ", made.message()),
                     "create it, or give another --data-dir");
  }
  auto lock = fs.Open(JoinPath(directory, kDataLockName), OpenMode::kCreateOrOpen);
  if (!lock.ok()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "data_dir_unusable",
                     absl::StrCat("cannot use ", directory, ": ", lock.status().message()),
                     "check that it is a directory that this user may write to");
  }
  if (const absl::Status locked = (*lock)->Lock(); !locked.ok()) {
    return MakeError(absl::StatusCode::kUnavailable, "locked",
                     absl::StrCat("another towlined runs on ", directory, ": ", locked.message()),
                     "stop it, or give another --data-dir");
  }
  return *std::move(lock);
}

absl::StatusOr<bool> LogHoldsFrames(FileSystem& fs, const std::string& wal_directory) {
  if (!Exists(fs, wal_directory)) return false;
  TOWLINE_ASSIGN_OR_RETURN(const wal::SpoolInfo info, wal::InspectSpool(fs, wal_directory));
  for (const wal::SegmentInfo& segment : info.segments) {
    if (segment.records != 0) return true;
  }
  return false;
}

// A directory that a first start may take: it holds nothing of value.
absl::Status CheckEmpty(FileSystem& fs, const std::string& directory) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
  static const char* const kAllowed[] = {kDataLockName, "lost+found", "control.a", "control.b",
                                         "slots.a",     "slots.b",    "gen",       "quarantine"};
  for (const std::string& name : names) {
    const bool allowed = std::find(std::begin(kAllowed), std::end(kAllowed), name) != std::end(kAllowed) ||
                         absl::StartsWith(name, "control.") || absl::StartsWith(name, "slots.");
    if (!allowed) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "foreign_directory",
                       absl::StrCat(directory, " holds \"", name, "\" but no control file of Towline"),
                       "give an empty directory");
    }
  }
  // What an interrupted first start left behind is generation 1 with nothing but preparation in it.
  if (!Exists(fs, GenerationDirectory(directory, 1))) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(const bool has_frames, LogHoldsFrames(fs, WalDirectory(directory, 1)));
  if (has_frames) {
    return MakeError(absl::StatusCode::kDataLoss, "control_damaged",
                     absl::StrCat(directory, " holds a log but no control file"),
                     "see docs/guides/recovery.md; nothing was changed");
  }
  return absl::OkStatus();
}

absl::Status FirstStart(const NodeConfig& config, const GenerationEnvironment& env, ControlFile& control_file) {
  Control control;
  control.node_id = config.node_id;
  control.incarnation = NewId(env.rng);
  control.role = config.role;
  if (control.role == NodeRole::kPrimary) {
    control.cluster_id = NewClusterId(env.rng);
    control.history = {HistoryEntry{1, 1, NewId(env.rng)}};
    control.term_primary = control.node_id;
    control.generation = 1;
    TOWLINE_RETURN_IF_ERROR(RemoveAll(env.fs, GenerationDirectory(config.data_dir, 1)));
    wal::RecoveryReport report;
    TOWLINE_ASSIGN_OR_RETURN(const auto first, Generation::Open(env, control, {}, 0, &report));
    TOWLINE_RETURN_IF_ERROR(first->Close());
  }
  // Slots of a log that is not there would claim what the new one never held.
  for (const char* name : {"slots.a", "slots.b"}) {
    TOWLINE_RETURN_IF_ERROR(RemoveAll(env.fs, JoinPath(config.data_dir, name)));
  }
  // Written last: until it is there, the directory counts as empty.
  TOWLINE_RETURN_IF_ERROR(control_file.Set(control, /*both=*/true));
  env.logger.Log(LogLevel::kInfo, "first_start",
                 {{"cluster_id", control.cluster_id},
                  {"incarnation", absl::StrCat(absl::Hex(control.incarnation))},
                  {"data_dir", config.data_dir}});
  return absl::OkStatus();
}

// Slots follow the live generation. They have not if the process ended between the switch and that.
absl::Status MoveSlots(uint64_t generation, Lsn first_lsn, Lsn end_lsn, slots::SlotTable& table) {
  const std::vector<slots::Slot> all = table.List();
  const auto is_behind = [&](const slots::Slot& slot) { return slot.data_generation < generation; };
  if (table.unknown() || std::none_of(all.begin(), all.end(), is_behind)) return absl::OkStatus();
  return table.SwitchDataGeneration(generation, first_lsn, end_lsn);
}

absl::Status OpenLive(const GenerationEnvironment& env, DataDirectory* directory) {
  const Control control = directory->control->Get();
  std::vector<wal::Watermark> watermarks;
  for (const slots::Slot& slot : slots::ProvingSlots(directory->slots->List(), control.generation)) {
    watermarks.push_back({absl::StrCat("slot:", slot.name), slot.confirmed_lsn});
  }
  wal::RecoveryReport report;
  TOWLINE_ASSIGN_OR_RETURN(directory->live,
                           Generation::Open(env, control, std::move(watermarks),
                                            directory->slots->first_retained(control.generation), &report));
  TOWLINE_RETURN_IF_ERROR(
      MoveSlots(control.generation, directory->live->spool().stats().first_lsn, report.end.lsn, *directory->slots));
  TOWLINE_ASSIGN_OR_RETURN(const History history, HistoryWith(control.history, report.term_starts));
  if (history != control.history) {
    TOWLINE_RETURN_IF_ERROR(directory->control->Update(true, [&](Control& c) { SetHistory(history, &c); }));
  }
  env.logger.Log(LogLevel::kInfo, "recovered",
                 {{"row", report.row},
                  {"generation", control.generation},
                  {"first_lsn", directory->live->spool().stats().first_lsn},
                  {"durable_lsn", report.end.lsn},
                  {"watermark", report.watermark},
                  {"watermark_source", report.watermark_source},
                  {"rewritten_records", report.rewritten_records},
                  {"quarantined_bytes", report.quarantined_bytes},
                  {"quarantine_file", report.quarantine_file}});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DataDirectory> OpenDataDirectory(const NodeConfig& config, const GenerationEnvironment& env) {
  DataDirectory directory;
  const bool existed = Exists(env.fs, config.data_dir);
  if (existed && !Exists(env.fs, JoinPath(config.data_dir, "control.a")) &&
      !Exists(env.fs, JoinPath(config.data_dir, "control.b")) &&
      !Exists(env.fs, JoinPath(config.data_dir, kDataLockName))) {
    // Refuse a foreign directory before even a lock file is put into it.
    const absl::Status empty = CheckEmpty(env.fs, config.data_dir);
    if (!empty.ok() && GetErrorInfo(empty).reason == "foreign_directory") return empty;
  }
  TOWLINE_ASSIGN_OR_RETURN(directory.lock, TakeLock(env.fs, config.data_dir));
  TOWLINE_ASSIGN_OR_RETURN(directory.control, ControlFile::Open(env.fs, config.data_dir));
  if (!directory.control->exists()) {
    TOWLINE_RETURN_IF_ERROR(CheckEmpty(env.fs, config.data_dir));
    TOWLINE_RETURN_IF_ERROR(FirstStart(config, env, *directory.control));
  }
  // What a killed process left in the page cache is read back, but perhaps not on the disk yet.
  TOWLINE_RETURN_IF_ERROR(directory.control->Settle());
  const Control control = directory.control->Get();
  if (control.node_id != config.node_id) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "wrong_node_id",
        absl::StrCat(config.data_dir, " belongs to node \"", control.node_id, "\", not \"", config.node_id, "\""),
        "start it with its own --node-id, or give another --data-dir");
  }
  slots::SlotLimits limits;
  limits.max_retained_bytes = config.slots_max_retained_bytes;
  limits.consumer_idle_micros = config.slots_consumer_idle_micros;
  limits.replica_idle_micros = config.slots_replica_idle_micros;
  limits.disk_guard_ratio = config.disk_guard_ratio;
  TOWLINE_ASSIGN_OR_RETURN(directory.slots,
                           slots::SlotTable::Open(env.fs, config.data_dir, env.clock, env.rng, env.logger, limits));
  if (directory.slots->unknown()) {
    env.logger.Log(LogLevel::kError, "slots_unknown",
                   {{"action", "both copies of the slot table are damaged: nothing is pruned; see docs/guides"}});
  }
  if (control.generation != 0) TOWLINE_RETURN_IF_ERROR(OpenLive(env, &directory));
  // A replica's may be an unfinished load, which its controller looks at first and then removes the rest.
  if (control.role == NodeRole::kPrimary) {
    RemoveOtherGenerations(env.fs, config.data_dir, control.generation, env.logger);
  }
  return directory;
}

void RemoveOtherGenerations(FileSystem& fs, const std::string& data_directory, uint64_t live, Logger& logger) {
  const std::string parent = JoinPath(data_directory, "gen");
  auto names = fs.List(parent);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (name == absl::StrCat(live)) continue;
    const absl::Status removed = RemoveAll(fs, JoinPath(parent, name));
    logger.Log(removed.ok() ? LogLevel::kInfo : LogLevel::kWarning, "generation_removed",
               {{"generation", name}, {"error", removed.ok() ? "" : removed.message()}});
  }
}

int ExitCodeFor(const absl::Status& status) {
  const std::string reason = GetErrorInfo(status).reason;
  if (reason == "locked") return 10;
  if (reason == "foreign_directory" || reason == "wrong_node_id" || reason == "data_dir_unusable" ||
      reason == "invalid_config") {
    return 2;
  }
  if (reason == "wal_corrupt" || reason == "control_damaged" || reason == "store_ahead" || reason == "store_behind" ||
      reason == "state_mismatch" || reason == "unknown_term") {
    return 11;
  }
  if (absl::IsDataLoss(status)) return 13;
  return 1;
}

}  // namespace towline
