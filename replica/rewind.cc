#include "replica/rewind.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/data_layout.h"
#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"
#include "replica/generation_files.h"
#include "replica/generation_switch.h"
#include "replica/log_history.h"
#include "wal/log_cut.h"

namespace towline {
namespace {

constexpr size_t kScanBytes = 1 << 20;

// Makes the directory `to` with a second name for each file of `from`.
absl::Status LinkFiles(FileSystem& fs, const std::string& from, const std::string& to) {
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(to));
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(from));
  for (const std::string& name : names) {
    TOWLINE_RETURN_IF_ERROR(fs.Link(JoinPath(from, name), JoinPath(to, name)));
  }
  return fs.SyncDirectory(to);
}

}  // namespace

Rewind::Rewind(ReplicaHost& host, Lsn common_lsn)
    : host_(host),
      env_(host.environment()),
      common_lsn_(common_lsn),
      began_micros_(env_.clock.MonotonicMicros()),
      old_(host.LiveGeneration()),
      hold_(old_->checkpoints()),
      pin_(old_->spool().NewPin(old_->spool().stats().first_lsn)),
      first_lsn_(old_->spool().stats().first_lsn),  // what the pin found is there as long as it lives
      quarantine_(env_, old_, common_lsn) {
  report_.common_lsn = common_lsn;
  report_.old_lsn = old_->spool().end().lsn;
}

Rewind::~Rewind() = default;

StageResult Rewind::Step() {
  if (!quarantined_) return ContinueQuarantine();
  return opened_ == nullptr ? Build() : Switch();
}

// Full disks are waited for; a node that cannot be made to go back loads a snapshot.
StageResult Rewind::Failed(absl::Status status) {
  opened_.reset();
  RemoveFiles();
  return absl::IsResourceExhausted(status) ? StageResult::Halt(std::move(status))
                                           : StageResult::Reconnect(std::move(status));
}

StageResult Rewind::ContinueQuarantine() {
  const absl::StatusOr<bool> done = Failpoint("rewind_skip_quarantine") ? true : quarantine_.Step();
  if (!done.ok()) return Failed(Annotate(done.status(), "copying own records to quarantine"));
  if (!*done) return StageResult::GoOn();
  quarantined_ = true;
  report_.discarded_records = quarantine_.records();
  report_.quarantine_file = quarantine_.file_name();
  env_.logger.Log(LogLevel::kWarning, "records_quarantined",
                  {{"reason", "rewind"},
                   {"file", quarantine_.file_name()},
                   {"first_lsn", quarantine_.first_lsn()},
                   {"records", quarantine_.records()}});
  return StageResult::GoOn();
}

// One that cannot be opened is given up for the next older one.
StageResult Rewind::Build() {
  const Lsn lsn = old_->checkpoints().NewestUpTo(common_lsn_);
  if (lsn == 0 || lsn + 1 < first_lsn_) {
    return Failed(MakeError(absl::StatusCode::kNotFound, "no_rewind_checkpoint",
                            absl::StrCat("no usable rewind checkpoint is at or below LSN ", common_lsn_,
                                         ", the log begins with LSN ", first_lsn_)));
  }
  const absl::StatusOr<std::vector<uint64_t>> numbers = ListGenerations(env_.fs, env_.data_directory);
  if (!numbers.ok()) return Failed(numbers.status());
  const uint64_t number = std::max(old_->number(), numbers->empty() ? 0 : numbers->back()) + 1;
  control_.generation = number;
  if (Failpoint("rewind_switch_early")) {
    host_.control().Update(true, [number](Control& control) { control.generation = number; }).IgnoreError();
  }
  absl::Status made = MakeFiles(number, lsn);
  if (!made.ok()) return Failed(Annotate(made, "making the files of the new generation"));
  absl::Status opened = Open(number);
  if (opened.ok()) {
    report_.checkpoint_lsn = lsn;
    return StageResult::GoOn();
  }
  if (absl::IsResourceExhausted(opened)) return Failed(std::move(opened));
  opened_.reset();
  RemoveFiles();
  old_->checkpoints().Remove(lsn, opened.message());
  return StageResult::GoOn();
}

absl::Status Rewind::MakeFiles(uint64_t number, Lsn checkpoint_lsn) {
  FileSystem& fs = env_.fs;
  const std::string directory = GenerationDirectory(env_.data_directory, number);
  const std::string checkpoint = old_->checkpoints().Path(checkpoint_lsn);
  const std::string checkpoints = CheckpointsDirectory(env_.data_directory, number);
  const std::string wal = WalDirectory(env_.data_directory, number);
  TOWLINE_RETURN_IF_ERROR(MakeDirectoryDurably(fs, JoinPath(env_.data_directory, "gen"), absl::StrCat(number)));
  TOWLINE_RETURN_IF_ERROR(LinkFiles(fs, checkpoint, StoreDirectory(env_.data_directory, number)));
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(checkpoints));
  TOWLINE_RETURN_IF_ERROR(LinkFiles(fs, checkpoint, JoinPath(checkpoints, absl::StrCat(checkpoint_lsn))));
  TOWLINE_RETURN_IF_ERROR(fs.SyncDirectory(checkpoints));
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(wal));
  TOWLINE_RETURN_IF_ERROR(
      wal::CutLog(fs, WalDirectory(env_.data_directory, old_->number()), wal, first_lsn_, common_lsn_));
  return fs.SyncDirectory(directory);
}

// The new log begins where the old one does now, so that becomes its base.
absl::StatusOr<Control> Rewind::ControlAfter(uint64_t number) {
  Control control = host_.control().Get();
  TOWLINE_ASSIGN_OR_RETURN(const wal::LogEnd before, old_->spool().EndAt(first_lsn_ - 1));
  TOWLINE_ASSIGN_OR_RETURN(control.base, PositionAt(control.history, before));
  if (control.exact_from.lsn < control.base.lsn) control.exact_from = control.base;
  control.history = CutAt(control.history, common_lsn_);
  control.generation = number;
  control.watermark = common_lsn_;
  return control;
}

absl::Status Rewind::Open(uint64_t number) {
  TOWLINE_ASSIGN_OR_RETURN(control_, ControlAfter(number));
  TOWLINE_ASSIGN_OR_RETURN(const wal::LogEnd end, old_->spool().EndAt(common_lsn_));
  TOWLINE_ASSIGN_OR_RETURN(const Position expected, PositionAt(control_.history, end));
  TOWLINE_ASSIGN_OR_RETURN(opened_, Generation::Open(env_, control_, {}, 0, nullptr));
  const Position applied = opened_->state().applied();
  if (applied == expected && opened_->history_at_open() == control_.history) return FindMembers();
  return MakeError(absl::StatusCode::kDataLoss, "state_mismatch",
                   absl::StrCat("the new state stands at LSN ", applied.lsn, " of term ", applied.term, ", chain ",
                                absl::Hex(applied.chain), ", and not at LSN ", expected.lsn, " of term ", expected.term,
                                ", chain ", absl::Hex(expected.chain)));
}

// What control says of the members may come from a record that is given up.
absl::Status Rewind::FindMembers() {
  if (!quarantine_.holds_members()) return absl::OkStatus();
  members_.emplace();
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<wal::Cursor> cursor, opened_->spool().NewCursor(first_lsn_));
  while (cursor->next_lsn() <= common_lsn_) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor->Next(kScanBytes));
    TOWLINE_RETURN_IF_ERROR(wal::ForEachShipped(batch.bytes, [this](const wal::ShippedFrame& frame) -> absl::Status {
      if (frame.header.type != wal::RecordType::kMembers) return absl::OkStatus();
      TOWLINE_ASSIGN_OR_RETURN(members_, DecodeMembers(frame.payload));
      return absl::OkStatus();
    }));
  }
  if (!members_->members.empty()) return absl::OkStatus();
  env_.logger.Log(LogLevel::kWarning, "members_unknown",
                  {{"first_lsn", first_lsn_},
                   {"common_lsn", common_lsn_},
                   {"reason", "the record that held the members at the common point is not retained"}});
  return absl::OkStatus();
}

StageResult Rewind::Switch() {
  // The state that a restart would find needs no replay.
  absl::Status flushed = opened_->state().store().Flush(/*wait=*/true);
  if (!flushed.ok()) return Failed(Annotate(flushed, "flushing the new state"));
  if (old_->spool().end().lsn != report_.old_lsn) {
    return Failed(MakeError(absl::StatusCode::kInternal, "log_moved",
                            absl::StrCat("the log was appended to beyond LSN ", report_.old_lsn)));
  }
  NewGeneration next{control_.generation, control_.cluster_id, control_.history,
                     control_.base,       control_.exact_from, opened_};
  next.members = std::move(members_);
  StageResult switched = SwitchToGeneration(host_, next);
  if (switched.kind == StageResult::Kind::kReconnect) return Failed(std::move(switched.status));
  if (switched.kind != StageResult::Kind::kDone) return switched;
  report_.seconds = static_cast<double>(env_.clock.MonotonicMicros() - began_micros_) / 1e6;
  env_.logger.Log(LogLevel::kWarning, "rewind_finished",
                  {{"generation", control_.generation},
                   {"common_lsn", common_lsn_},
                   {"old_lsn", report_.old_lsn},
                   {"checkpoint_lsn", report_.checkpoint_lsn},
                   {"discarded_records", report_.discarded_records},
                   {"quarantine_file", report_.quarantine_file},
                   {"ms", static_cast<int64_t>(report_.seconds * 1e3)}});
  return switched;
}

// What stays goes before the next rewind, or at the next start.
void Rewind::RemoveFiles() {
  if (control_.generation == 0) return;
  RemoveGeneration(env_.fs, env_.data_directory, control_.generation).IgnoreError();
}

}  // namespace towline
