#include "primary/snapshot_start.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "primary/pull_protocol.h"
#include "primary/snapshot_session.h"

namespace towline {
namespace {

using Source = SnapshotSessionImpl::Source;

// Bytes a second that a stream is taken to reach before one was measured.
constexpr double kAssumedRate = 64.0 * (1 << 20);
constexpr uint32_t kOutrunRetryMs = 5000;

absl::Status PlanChanged(const Plan& plan) {
  ErrorInfo info{"plan_changed",
                 absl::StrCat("the decision is ", DecisionName(plan.decision), " (", plan.reason, "): ", plan.message),
                 "ask with Pull again", plan.numbers};
  info.metadata["decision"] = std::string(DecisionName(plan.decision));
  info.metadata["plan_reason"] = plan.reason;
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

// A snapshot through which the log grows beyond what the slot may hold would be for nothing.
absl::Status CheckHeadroom(SourceCore& core, LogAndState& live, double growth) {
  const uint64_t bytes = live.state().store().Stats().disk_bytes;
  const uint64_t limit = core.snapshots.Limit();
  double rate = core.snapshots.StreamRate().value_or(kAssumedRate);
  if (limit != 0) rate = std::min(rate, static_cast<double>(limit));
  const double seconds = static_cast<double>(bytes) / rate;
  const double needed = growth * seconds;
  const uint64_t headroom = core.slots.limits().max_retained_bytes;
  if (needed <= static_cast<double>(headroom)) return absl::OkStatus();
  ErrorInfo info;
  info.reason = "snapshot_outruns_log";
  info.message = absl::StrCat("a snapshot of about ", bytes, " bytes takes about ", static_cast<uint64_t>(seconds),
                              " s at ", static_cast<uint64_t>(rate), " bytes/s; the log grows by ",
                              static_cast<uint64_t>(growth), " bytes/s, so about ", static_cast<uint64_t>(needed),
                              " bytes of it would be held, and a slot may hold ", headroom);
  info.next_action = "raise slots.max_retained_bytes or bootstrap.rate_limit, or write less until it is through";
  info.metadata = {{"retry_after_ms", absl::StrCat(kOutrunRetryMs)},
                   {"estimated_bytes", absl::StrCat(bytes)},
                   {"growth_bytes_per_second", absl::StrCat(static_cast<uint64_t>(growth))},
                   {"headroom_bytes", absl::StrCat(headroom)}};
  return MakeError(absl::StatusCode::kResourceExhausted, std::move(info));
}

SnapshotMeta MetaOf(const NodeView& node) {
  SnapshotMeta meta;
  meta.cluster_id = node.cluster_id;
  meta.node_id = node.node_id;
  return meta;
}

// Who has begun an RDB stream goes on with it.
bool TakesFiles(const ResumeRequest& request, const FileOffer& offer, const LogAndState& live) {
  if (offer.form.empty() || request.cursor.has_value()) return false;
  const std::optional<FileSnapshotPlace> place = live.file_snapshots();
  return place.has_value() && place->form == offer.form;
}

// The slot holds the log behind `lsn` for the session, in a new generation or, if `keep` and it does so already, in the
// one that it has.
absl::StatusOr<slots::Session> Hold(SourceCore& core, const ResumeRequest& request, const Resumption& resumption,
                                    Lsn lsn, bool keep, std::string* reason) TOWLINE_REQUIRES(core.resume_mutex) {
  TOWLINE_ASSIGN_OR_RETURN(slots::Session session, core.TakeSlot(request, resumption, lsn));
  *reason = resumption.plan.reason;
  const std::optional<slots::Slot>& slot = resumption.slot;
  if (keep && slot.has_value() && slot->state == slots::SlotState::kBootstrapping && slot->confirmed_lsn <= lsn &&
      slot->data_generation == resumption.node.data_generation) {
    *reason = slot->bootstrap_reason;
    return session;
  }
  const absl::StatusOr<slots::Slot> held =
      core.slots.NewGeneration(request.slot, resumption.node.data_generation, lsn, slots::SlotState::kBootstrapping,
                               *reason, /*keep_session=*/true);
  if (!held.ok()) {
    core.slots.EndSession(session.id);
    return held.status();
  }
  session.generation = held->generation;
  return session;
}

// The snapshot that a cut RDB stream goes on with: its own, or the newest.
absl::StatusOr<SharedSnapshotPtr> SnapshotFor(SourceCore& core, const ResumeCursor& cursor,
                                              const Resumption& resumption) {
  SharedSnapshotPtr snapshot = core.snapshots.Find(cursor.snapshot_id);
  const uint64_t data_generation = resumption.node.data_generation;
  if (snapshot != nullptr && snapshot->form() == SnapshotForm::kRdb && snapshot->live->number() == data_generation) {
    return snapshot;
  }
  // What is read is newer than the stream's own position in any case, so an old one is no worse than none.
  snapshot = core.snapshots.Newest(SnapshotForm::kRdb, data_generation, cursor.read.lsn,
                                   /*young=*/core.snapshots.HasRoom());
  if (snapshot != nullptr) return snapshot;
  if (!core.snapshots.HasRoom()) return core.snapshots.Full();
  TOWLINE_ASSIGN_OR_RETURN(snapshot, core.snapshots.Make(SnapshotForm::kRdb, resumption.live, MetaOf(resumption.node),
                                                         resumption.node.history));
  if (snapshot->meta.position.lsn >= cursor.read.lsn) return snapshot;
  return MakeError(absl::StatusCode::kUnavailable, "upstream_behind",
                   absl::StrCat("the unfinished snapshot was read at LSN ", cursor.read.lsn, ", the state here is at ",
                                snapshot->meta.position.lsn),
                   "ask again later");
}

absl::StatusOr<Source> GoOn(SourceCore& core, const ResumeRequest& request, const Resumption& resumption)
    TOWLINE_REQUIRES(core.resume_mutex) {
  const ResumeCursor& cursor = *request.cursor;
  Source source;
  TOWLINE_ASSIGN_OR_RETURN(source.snapshot, SnapshotFor(core, cursor, resumption));
  TOWLINE_ASSIGN_OR_RETURN(source.slot,
                           Hold(core, request, resumption, cursor.position.lsn, /*keep=*/true, &source.reason));
  source.cursor = cursor.at;
  source.position = cursor.position;
  source.history = CutAt(resumption.node.history, cursor.position.lsn);
  source.how = source.snapshot->id == cursor.snapshot_id ? "resumed" : "rolled";
  return source;
}

// What a snapshot must at least hold for the owner: one from before its own records on our line would take it back,
// which it refuses.
Lsn OldestUseful(const ResumeRequest& request, const Resumption& resumption) {
  const Lsn own = resumption.plan.common_lsn != 0 ? resumption.plan.common_lsn + 1 : request.lsn;
  return std::min(own, resumption.live->state().applied().lsn);
}

// ... and so that the log goes on behind it.
Lsn OldestPosition(const ResumeRequest& request, const Resumption& resumption) {
  const Lsn first = resumption.log.first_lsn == 0 ? 0 : resumption.log.first_lsn - 1;
  return std::max({first, resumption.log.damaged_lsn, OldestUseful(request, resumption)});
}

// Where a snapshot that is made now will be at the earliest: an RDB stream is read from the state, files are what of it
// is persisted.
absl::StatusOr<Lsn> EarliestPosition(SnapshotForm form, StateStore& state, Lsn oldest) {
  if (form == SnapshotForm::kRdb) return state.applied().lsn;
  TOWLINE_ASSIGN_OR_RETURN(const Lsn persisted, state.PersistedLsn());
  if (persisted >= oldest) return persisted;
  // Rare: the store was flushed a moment ago, and the owner is ahead of that.
  TOWLINE_RETURN_IF_ERROR(state.store().Flush(/*wait=*/true));
  return state.PersistedLsn();
}

// One that is there already, and holds at least `oldest`.
SharedSnapshotPtr FindSnapshot(SourceCore& core, SnapshotForm form, const FileOffer& offer, uint64_t data_generation,
                               Lsn oldest) {
  if (form == SnapshotForm::kFiles && offer.snapshot_id != 0) {
    SharedSnapshotPtr own = core.snapshots.Find(offer.snapshot_id);
    if (own != nullptr && own->form() == form && own->live->number() == data_generation &&
        own->meta.position.lsn >= oldest) {
      return own;
    }
  }
  return core.snapshots.Newest(form, data_generation, oldest, /*young=*/true);
}

// What counters and log call the stream.
std::string HowItBegins(const ResumeRequest& request, const FileOffer& offer, SnapshotForm form, uint64_t snapshot_id,
                        bool made) {
  if (form == SnapshotForm::kFiles && !offer.held.empty()) {
    return snapshot_id == offer.snapshot_id ? "resumed" : "rolled";
  }
  if (request.cursor.has_value()) return "restarted";
  return made ? "new" : "joined";
}

// The slot is at the position of the snapshot, or before it, before anything is sent.
absl::StatusOr<Source> Begin(SourceCore& core, const ResumeRequest& request, const Resumption& resumption,
                             SnapshotForm form, FileOffer offer) TOWLINE_REQUIRES(core.resume_mutex) {
  Source source;
  const Lsn oldest = OldestPosition(request, resumption);
  source.snapshot = FindSnapshot(core, form, offer, resumption.node.data_generation, oldest);
  const bool made = source.snapshot == nullptr;
  const bool goes_on = form == SnapshotForm::kFiles && !offer.held.empty();
  if (!made) {
    TOWLINE_ASSIGN_OR_RETURN(source.slot, Hold(core, request, resumption, source.snapshot->meta.position.lsn,
                                               /*keep=*/goes_on, &source.reason));
  } else {
    if (!core.snapshots.HasRoom()) return core.snapshots.Full();
    TOWLINE_ASSIGN_OR_RETURN(const Lsn from, EarliestPosition(form, resumption.live->state(), oldest));
    TOWLINE_ASSIGN_OR_RETURN(source.slot, Hold(core, request, resumption, from, /*keep=*/goes_on, &source.reason));
    absl::Cleanup end = [&] { core.slots.EndSession(source.slot.id); };
    TOWLINE_ASSIGN_OR_RETURN(
        source.snapshot, core.snapshots.Make(form, resumption.live, MetaOf(resumption.node), resumption.node.history));
    TOWLINE_RETURN_IF_ERROR(
        core.slots.RaiseConfirmed(source.slot.slot, source.slot.generation, source.snapshot->meta.position.lsn));
    std::move(end).Cancel();
  }
  source.how = HowItBegins(request, offer, form, source.snapshot->id, made);
  source.held = std::move(offer.held);
  source.position = source.snapshot->meta.position;
  source.history = source.snapshot->meta.history;
  return source;
}

// Files that cannot be had now (the disk is full here, or the store flushes all the time) are no reason to wait, but
// for who would lose what it has of them.
bool WantsRdbInstead(const absl::Status& status, bool holds_files) {
  if (status.ok() || holds_files) return false;
  return absl::IsAborted(status) || GetErrorInfo(status).reason == "disk_full";
}

absl::StatusOr<Source> Choose(SourceCore& core, const ResumeRequest& request, FileOffer offer, double growth)
    TOWLINE_REQUIRES(core.resume_mutex) {
  const Resumption resumption = core.Resume(request);
  if (resumption.plan.decision != Decision::kFull) return PlanChanged(resumption.plan);
  if (request.cursor.has_value()) {
    const absl::Status usable = CheckCursor(request, resumption.node, resumption.log);
    if (usable.ok()) return GoOn(core, request, resumption);
    core.logger.Log(LogLevel::kWarning, "snapshot_cursor_dropped",
                    {{"node", request.slot},
                     {"reason", GetErrorInfo(usable).reason},
                     {"message", GetErrorInfo(usable).message},
                     {"bytes", request.cursor->at.bytes}});
  }
  // Who goes on has passed it when it began.
  if (offer.held.empty()) TOWLINE_RETURN_IF_ERROR(CheckHeadroom(core, *resumption.live, growth));
  if (!TakesFiles(request, offer, *resumption.live)) return Begin(core, request, resumption, SnapshotForm::kRdb, {});
  const bool holds_files = !offer.held.empty();
  absl::StatusOr<Source> files = Begin(core, request, resumption, SnapshotForm::kFiles, std::move(offer));
  if (!WantsRdbInstead(files.status(), holds_files)) return files;
  core.logger.Log(LogLevel::kWarning, "snapshot_without_files",
                  {{"node", request.slot}, {"status", files.status().ToString()}});
  return Begin(core, request, resumption, SnapshotForm::kRdb, {});
}

// Files are what is persisted: what is in memory goes to the disk first, without the lock, if a snapshot will be made.
absl::Status FlushForFiles(SourceCore& core, const ResumeRequest& request, const FileOffer& offer) {
  std::shared_ptr<LogAndState> live;
  {
    MutexLock lock(&core.resume_mutex);
    const Resumption resumption = core.Resume(request);
    if (resumption.plan.decision != Decision::kFull) return absl::OkStatus();
    live = resumption.live;
    if (!TakesFiles(request, offer, *live)) return absl::OkStatus();
    const Lsn oldest = OldestPosition(request, resumption);
    const uint64_t number = resumption.node.data_generation;
    if (FindSnapshot(core, SnapshotForm::kFiles, offer, number, oldest) != nullptr) return absl::OkStatus();
    if (!core.snapshots.HasRoom()) return absl::OkStatus();
  }
  return live->state().store().Flush(/*wait=*/true);
}

}  // namespace

void AdoptSnapshots(SourceCore& core) {
  const NodeView node = core.host.View();
  const std::shared_ptr<LogAndState> live = core.host.Live();
  if (live != nullptr && live->number() == node.data_generation) core.snapshots.Adopt(live, MetaOf(node), node.history);
}

absl::StatusOr<std::unique_ptr<SnapshotSession>> StartSnapshot(SourceCore& core, const ResumeRequest& request,
                                                               FileOffer offer, double growth,
                                                               std::function<void()> wake) {
  if (request.temporary) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_start",
                     "a temporary slot is gone before the log behind the snapshot is asked for",
                     "load a snapshot with a slot that is not temporary");
  }
  TOWLINE_RETURN_IF_ERROR(core.snapshots.Enter());
  absl::Cleanup leave = [&core] { core.snapshots.Leave(); };
  AdoptSnapshots(core);
  if (const absl::Status flushed = FlushForFiles(core, request, offer); !flushed.ok()) {
    if (!WantsRdbInstead(flushed, !offer.held.empty())) return flushed;
    offer = {};
  }
  MutexLock lock(&core.resume_mutex);
  TOWLINE_ASSIGN_OR_RETURN(Source source, Choose(core, request, std::move(offer), growth));
  std::move(leave).Cancel();
  return std::make_unique<SnapshotSessionImpl>(core, std::move(source), std::move(wake));
}

absl::StatusOr<std::unique_ptr<SnapshotSession>> StartSave(SourceCore& core, const std::optional<ResumeCursor>& cursor,
                                                           std::function<void()> wake) {
  TOWLINE_RETURN_IF_ERROR(core.snapshots.Enter());
  absl::Cleanup leave = [&core] { core.snapshots.Leave(); };
  MutexLock lock(&core.resume_mutex);  // from the look for room until it is taken
  const NodeView node = core.host.View();
  const std::shared_ptr<LogAndState> live = core.host.Live();
  if (live == nullptr || live->number() != node.data_generation) {
    return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no data yet", "ask another node");
  }
  if (!node.exact) {
    return MakeError(absl::StatusCode::kUnavailable, "not_exact", "the node's state is not exact yet",
                     "ask another node");
  }
  Source source;
  source.how = "saved";
  if (cursor.has_value()) {
    source.snapshot = core.snapshots.Find(cursor->snapshot_id);
    if (source.snapshot == nullptr || source.snapshot->form() != SnapshotForm::kRdb) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "snapshot_gone",
                       "the snapshot that the file was begun with is gone", "begin the file again");
    }
    source.cursor = cursor->at;
  } else {
    source.snapshot = core.snapshots.Newest(SnapshotForm::kRdb, node.data_generation, live->state().applied().lsn,
                                            /*young=*/true);
    if (source.snapshot == nullptr) {
      if (!core.snapshots.HasRoom()) return core.snapshots.Full();
      TOWLINE_ASSIGN_OR_RETURN(source.snapshot,
                               core.snapshots.Make(SnapshotForm::kRdb, live, MetaOf(node), node.history));
    }
  }
  source.position = source.snapshot->meta.position;
  source.history = source.snapshot->meta.history;
  std::move(leave).Cancel();
  return std::make_unique<SnapshotSessionImpl>(core, std::move(source), std::move(wake));
}

}  // namespace towline
