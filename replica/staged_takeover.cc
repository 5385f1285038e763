// From a loaded snapshot to the live generation: quarantine, log, switch.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"
#include "replica/generation_switch.h"
#include "replica/staged_install.h"

namespace towline {

bool StagedInstall::exact() const {
  if (!loaded()) return false;
  if (Failpoint("replica_switch_early")) return true;
  const Lsn applied = generation_ == nullptr ? record_.point.meta.position.lsn : generation_->applier().applied_lsn();
  return applied >= record_.read.lsn;
}

StageResult StagedInstall::Step() {
  needs_log_ = false;
  if (!quarantined_) return ContinueQuarantine();
  if (exact()) return Switch();
  if (generation_ == nullptr) return OpenGeneration();
  needs_log_ = true;
  return StageResult::GoOn();
}

Lsn StagedInstall::CommonLsn(const Generation& old) const {
  const SnapshotMeta& meta = record_.point.meta;
  const Lsn end = const_cast<Generation&>(old).spool().end().lsn;
  const Lsn common = LastCommonLsn(host_.control().Get().history, end, meta.history, meta.position.lsn);
  return record_.common_lsn == 0 ? common : std::min<Lsn>(common, record_.common_lsn);
}

// Records that the source does not have are kept, for people, if they were what made the snapshot necessary.
StageResult StagedInstall::ContinueQuarantine() {
  const GenerationEnvironment& env = host_.environment();
  if (quarantine_ == nullptr) {
    const std::shared_ptr<Generation> old = host_.LiveGeneration();
    const bool own_records_matter =
        record_.reason == "diverged" || record_.reason == "inexact" || record_.reason == "requested";
    if (old == nullptr || !own_records_matter) {
      quarantined_ = true;
      return StageResult::GoOn();
    }
    quarantine_ = std::make_unique<RecordQuarantine>(env, old, CommonLsn(*old));
  }
  const absl::StatusOr<bool> done = quarantine_->Step();
  if (!done.ok()) {
    quarantine_.reset();
    absl::Status why = Annotate(done.status(), "copying own records to quarantine");
    return absl::IsResourceExhausted(why) ? StageResult::Halt(std::move(why)) : StageResult::Reconnect(std::move(why));
  }
  if (!*done) return StageResult::GoOn();
  if (quarantine_->records() != 0) {
    env.logger.Log(LogLevel::kWarning, "records_quarantined",
                   {{"reason", record_.reason},
                    {"file", quarantine_->file_name()},
                    {"first_lsn", quarantine_->first_lsn()},
                    {"records", quarantine_->records()}});
  }
  quarantine_.reset();
  quarantined_ = true;
  return StageResult::GoOn();
}

// The state is a mixture until the log up to the newest position read has been applied.
StageResult StagedInstall::OpenGeneration() {
  const SnapshotMeta& meta = record_.point.meta;
  control_ = host_.control().Get();
  control_.cluster_id = meta.cluster_id;
  control_.history = meta.history;
  control_.generation = number_;
  control_.base = meta.position;
  control_.exact_from = record_.read;
  control_.watermark = meta.position.lsn;
  absl::StatusOr<std::unique_ptr<Generation>> opened = Generation::Open(host_.environment(), control_, {}, 0, nullptr);
  if (!opened.ok()) {
    return absl::IsResourceExhausted(opened.status()) ? StageResult::Halt(std::move(opened).status())
                                                      : StageResult::Reconnect(std::move(opened).status());
  }
  generation_ = *std::move(opened);
  control_.history = generation_->history_at_open();
  host_.environment().logger.Log(LogLevel::kInfo, "bootstrap_replaying",
                                 {{"generation", number_},
                                  {"base_lsn", meta.position.lsn},
                                  {"log_lsn", generation_->spool().end().lsn},
                                  {"exact_from_lsn", record_.read.lsn}});
  return StageResult::GoOn();
}

StageResult StagedInstall::Switch() {
  const GenerationEnvironment& env = host_.environment();
  const SnapshotMeta& meta = record_.point.meta;
  NewGeneration next{number_, meta.cluster_id, meta.history, meta.position, record_.read, generation_};
  // The record that names the members may lie below the snapshot: the primary writes it again for whoever loaded one.
  // An old list would let this node be promoted by too few.
  next.members.emplace();
  if (generation_ != nullptr) {
    next.history = control_.history;
    // The state that a restart would find must be exact too.
    absl::Status flushed = generation_->state().store().Flush(/*wait=*/true);
    if (absl::IsResourceExhausted(flushed)) return StageResult::Halt(std::move(flushed));
    if (!flushed.ok()) return StageResult::Fatal(std::move(flushed));
  }
  StageResult switched = SwitchToGeneration(host_, next);
  if (switched.kind != StageResult::Kind::kDone) return switched;
  const uint64_t now_ms = static_cast<uint64_t>(env.clock.WallMicros()) / 1000;
  env.logger.Log(LogLevel::kInfo, "bootstrap_finished",
                 {{"reason", record_.reason},
                  {"generation", number_},
                  {"lsn", meta.position.lsn},
                  {"exact_from_lsn", record_.read.lsn},
                  {"keys", record_.point.cursor.keys},
                  {"bytes", record_.point.cursor.bytes},
                  {"received_bytes", record_.received_bytes},
                  {"resumes", record_.resumes},
                  {"ms", now_ms > record_.started_unix_ms ? now_ms - record_.started_unix_ms : 0}});
  return switched;
}

}  // namespace towline
