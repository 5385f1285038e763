#include "primary/replication_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "primary/pull_protocol.h"
#include "primary/pull_session.h"
#include "primary/snapshot_start.h"
#include "primary/source_impl.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

// A node that starts prepares log files and opens its store: what its disk does in that time is no rate.
constexpr double kDiskSecondsMin = 15;

}  // namespace

ReplicationSourceImpl::ReplicationSourceImpl(SourceHost& host, slots::SlotTable& slots, Clock& clock, Rng& rng,
                                             Logger& logger, SourceOptions options)
    : core_(host, slots, clock, rng, logger, std::move(options)) {}

std::unique_ptr<PullSession> ReplicationSourceImpl::NewPullSession(std::function<void()> wake) {
  return std::make_unique<PullSessionImpl>(core_, std::move(wake));
}

absl::StatusOr<std::unique_ptr<SnapshotSession>> ReplicationSourceImpl::NewSnapshotSession(
    const v1::FetchSnapshotRequest& request, std::function<void()> wake) {
  TOWLINE_ASSIGN_OR_RETURN(const ResumeRequest decoded, DecodeStart(request.start()));
  TOWLINE_ASSIGN_OR_RETURN(FileOffer offer, DecodeOffer(request));
  double growth = 0;
  {
    MutexLock lock(&mutex_);
    if (const auto rates = rates_.append().rates(); rates.has_value()) growth = rates->per_second_1m;
  }
  return StartSnapshot(core_, decoded, std::move(offer), growth, std::move(wake));
}

absl::StatusOr<std::unique_ptr<SnapshotSession>> ReplicationSourceImpl::NewSaveSession(
    const v1::SaveSnapshotRequest& request, std::function<void()> wake) {
  std::optional<ResumeCursor> cursor;
  if (request.has_cursor()) {
    TOWLINE_ASSIGN_OR_RETURN(cursor, DecodeCursor(request.cursor()));
  }
  return StartSave(core_, cursor, std::move(wake));
}

absl::StatusOr<v1::PullStarted> ReplicationSourceImpl::Explain(const v1::PullStart& start, uint64_t* bytes_to_ship) {
  TOWLINE_ASSIGN_OR_RETURN(const ResumeRequest request, DecodeStart(start));
  Resumption resumption = core_.Resume(request);
  // These take the slot at once; a full resync takes it when the snapshot is fetched.
  if (resumption.plan.decision == Decision::kPartial || resumption.plan.decision == Decision::kRewind) {
    const absl::Status free = core_.slots.CheckFree(request.slot, request.process_instance);
    if (!free.ok()) RefuseInUse(free, &resumption.plan);
  }
  v1::PullStarted started;
  EncodeStarted(resumption.plan, resumption.node, resumption.log, &started);
  if (bytes_to_ship == nullptr) return started;
  *bytes_to_ship = 0;
  if (resumption.plan.decision == Decision::kPartial) {
    *bytes_to_ship = resumption.live->spool().BytesBehind(resumption.plan.from_lsn - 1);
  } else if (resumption.plan.decision == Decision::kFull) {
    *bytes_to_ship = resumption.live->state().store().Stats().disk_bytes;
  }
  return started;
}

absl::StatusOr<v1::PullStart> ReplicationSourceImpl::StartOfSlotOwner(const std::string& name) {
  const std::optional<slots::Slot> slot = core_.slots.Get(name);
  if (!slot.has_value()) {
    return MakeError(absl::StatusCode::kNotFound, "slot_not_found",
                     absl::StrCat("there is no slot \"", Printable(name), "\""), "list them with: towctl slot list");
  }
  const NodeView node = core_.host.View();
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  const bool consumer = slot->kind == slots::SlotKind::kConsumer;
  v1::PullStart start;
  start.set_protocol_version(kPullProtocolVersion);
  start.set_slot(name);
  start.set_kind(consumer ? v1::SLOT_KIND_CONSUMER : v1::SLOT_KIND_REPLICA);
  start.set_format(consumer ? v1::RECORD_FORMAT_RECORDS : v1::RECORD_FORMAT_FRAMES);
  const uint64_t holder = core_.slots.SessionProcess(name);
  start.set_process_instance(holder == 0 ? 1 : holder);  // the one that may go on in its place
  start.set_credit_bytes(1);
  start.set_temporary(slot->temporary);
  if (consumer) {
    start.set_cluster_id(node.cluster_id);
    start.set_from_slot(true);
    return start;
  }
  start.set_incarnation(slot->owner_incarnation == 0 ? ~node.incarnation : slot->owner_incarnation);
  if (live == nullptr || slot->data_generation != live->number() || slot->flushed_lsn == 0) return start;
  const Lsn lsn = std::min(slot->flushed_lsn, live->spool().end().lsn);
  start.set_cluster_id(node.cluster_id);
  start.set_lsn(lsn);
  // A chain that this log no longer tells cannot differ from it either.
  if (const absl::StatusOr<wal::LogEnd> end = live->spool().EndAt(lsn); end.ok()) start.set_chain(end->chain);
  EncodeHistory(CutAt(node.history, lsn), start.mutable_history());
  return start;
}

absl::StatusOr<slots::Slot> ReplicationSourceImpl::DropSlot(const std::string& name, bool force) {
  TOWLINE_ASSIGN_OR_RETURN(slots::Slot dropped, core_.slots.Drop(name, force));
  if (dropped.state != slots::SlotState::kInvalidated) core_.CountInvalidation("dropped");
  return dropped;
}

// --- Status ---

std::vector<PeerStatus> ReplicationSourceImpl::Peers() const {
  std::map<std::string, PeerStatus> connected;  // by slot
  core_.ForEachSession([&connected](ServedSession& session) {
    PeerStatus status;
    if (session.Describe(&status)) connected[status.slot] = status;
  });
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  LagReference reference;
  reference.durable_lsn = live == nullptr ? 0 : live->spool().end().lsn;
  reference.bytes_behind = [&live](Lsn lsn) { return live->spool().BytesBehind(lsn); };
  const std::function<double(Lsn)> seconds = [this](Lsn lsn) { return core_.LagSeconds(lsn); };
  std::vector<PeerStatus> peers;
  for (const slots::Slot& slot : core_.slots.List()) {
    PeerStatus status;
    const auto found = connected.find(slot.name);
    if (!slot.origin.empty() && found == connected.end()) continue;  // its owner is another node's peer
    if (found != connected.end()) {
      status = found->second;
    } else {
      status.slot = slot.name;
      status.state = "disconnected";
      status.flushed_lsn = std::max(slot.flushed_lsn, slot.confirmed_lsn);
      status.received_lsn = status.flushed_lsn;
      // What it has applied beyond that is not known any more.
      status.applied_lsn = std::max(slot.applied_lsn, status.flushed_lsn);
    }
    status.kind = slot.kind;
    status.flushed_lsn = std::max(status.flushed_lsn, slot.flushed_lsn);
    if (slot.kind == slots::SlotKind::kReplica) status.node_id = slot.name;
    reference.seconds = status.connected ? seconds : nullptr;
    status.stages =
        LagByStage({status.sent_lsn, status.received_lsn, status.flushed_lsn, status.applied_lsn}, reference);
    peers.push_back(std::move(status));
  }
  return peers;
}

ForecastInput ReplicationSourceImpl::LookAtSlots(const std::vector<slots::Slot>& slots, LogAndState* live) const {
  ForecastInput input;
  input.limits = core_.slots.limits();
  input.kept_log_bytes = core_.options.wal_keep_bytes;
  Lsn first_lsn = 0;
  if (live != nullptr) {
    const wal::SpoolStats stats = live->spool().stats();
    first_lsn = stats.first_lsn;
    input.log_bytes = stats.retained_bytes;
  }
  for (const slots::Slot& slot : slots) {
    ForecastSlot& look = input.slots.emplace_back();
    look.name = slot.name;
    look.kind = slot.kind;
    look.state = slot.state;
    look.is_copy = !slot.origin.empty();
    if (slot.invalidation) {
      look.lost_cause = slot.invalidation->cause;
    } else if (live == nullptr || slot.data_generation != live->number() || slot.confirmed_lsn + 1 < first_lsn) {
      look.lost_cause = "wal_removed";
    } else {
      look.retained_bytes = live->spool().BytesBehind(slot.confirmed_lsn);
    }
    const std::optional<int64_t> idle_micros = core_.slots.IdleMicros(slot.name);
    look.has_session = !idle_micros;
    look.idle_seconds = static_cast<double>(idle_micros.value_or(0)) * 1e-6;
  }
  MutexLock lock(&mutex_);
  input.append = rates_.append().rates();
  input.measured_seconds = rates_.append().measured_seconds();
  input.disk = disk_;
  if (rates_.disk_growth().measured_seconds() >= kDiskSecondsMin) input.disk_growth = rates_.disk_growth().rates();
  for (size_t i = 0; i < slots.size(); ++i) {
    ForecastSlot& look = input.slots[i];
    look.drain = rates_.drain(slots[i]);
    // Who has just come is not behind for what was written before.
    if (look.has_session) look.growth = rates_.growth(slots[i]).value_or(Rates{});
  }
  return input;
}

std::vector<SlotStatus> ReplicationSourceImpl::Slots() const {
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  const std::vector<slots::Slot> slots = core_.slots.List();
  const Forecast forecast = MakeForecast(LookAtSlots(slots, live.get()));
  const uint64_t most = forecast.limits.max_retained_bytes;
  std::vector<SlotStatus> list;
  for (size_t i = 0; i < slots.size(); ++i) {
    const SlotForecast& of_slot = forecast.slots[i];
    SlotStatus& status = list.emplace_back();
    status.slot = slots[i];
    status.retained_bytes = of_slot.slot.retained_bytes;
    status.headroom_bytes = of_slot.headroom_bytes;
    status.headroom_seconds = of_slot.headroom_seconds;
    status.health = status.headroom_bytes < most / 4 ? "at_risk" : "reserved";
    if (!of_slot.slot.lost_cause.empty()) status.health = "lost";
  }
  return list;
}

Forecast ReplicationSourceImpl::ForecastSlots(const ForecastWhatIf& what_if) const {
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  return MakeForecast(LookAtSlots(core_.slots.List(), live.get()), what_if);
}

Forecast ReplicationSourceImpl::ForecastNode() const {
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  return MakeForecast(LookAtSlots({}, live.get()));
}

ResyncCounters ReplicationSourceImpl::Counters() const { return core_.counters(); }

SnapshotsStatus ReplicationSourceImpl::Snapshots() const {
  SnapshotsStatus status;
  status.pool = core_.snapshots.Status();
  core_.ForEachSession([&status](ServedSession& session) {
    SnapshotSend send;
    if (session.DescribeSnapshot(&send)) status.sends.push_back(std::move(send));
  });
  const auto by_slot = [](const SnapshotSend& a, const SnapshotSend& b) { return a.slot < b.slot; };
  std::sort(status.sends.begin(), status.sends.end(), by_slot);
  return status;
}

void ReplicationSourceImpl::EndSessions(const absl::Status& status) {
  core_.ForEachSession([&status](ServedSession& session) { session.End(status); });
  core_.snapshots.Clear();  // they are of a generation that may not stay
}

std::unique_ptr<ReplicationSource> NewReplicationSource(SourceHost& host, slots::SlotTable& slots, Clock& clock,
                                                        Rng& rng, Logger& logger, SourceOptions options) {
  return std::make_unique<ReplicationSourceImpl>(host, slots, clock, rng, logger, std::move(options));
}

}  // namespace towline
