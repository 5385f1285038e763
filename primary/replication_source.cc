#include "primary/replication_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "primary/pull_protocol.h"
#include "primary/pull_session.h"
#include "primary/snapshot_session.h"
#include "primary/source_impl.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

ReplicationSourceImpl::ReplicationSourceImpl(SourceHost& host, slots::SlotTable& slots, Clock& clock, Logger& logger,
                                             SourceOptions options)
    : core_(host, slots, clock, logger, std::move(options)) {}

std::unique_ptr<PullSession> ReplicationSourceImpl::NewPullSession(std::function<void()> wake) {
  return std::make_unique<PullSessionImpl>(core_, std::move(wake));
}

absl::StatusOr<std::unique_ptr<SnapshotSession>> ReplicationSourceImpl::NewSnapshotSession(
    const v1::FetchSnapshotRequest& request) {
  TOWLINE_ASSIGN_OR_RETURN(const ResumeRequest decoded, DecodeStart(request.start()));
  return SnapshotSessionImpl::Open(core_, decoded);
}

absl::StatusOr<v1::PullStarted> ReplicationSourceImpl::Explain(const v1::PullStart& start, uint64_t* bytes_to_ship) {
  TOWLINE_ASSIGN_OR_RETURN(const ResumeRequest request, DecodeStart(start));
  const Resumption resumption = core_.Resume(request);
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
  start.set_process_instance(1);  // of nobody; it takes no part in the decision
  start.set_credit_bytes(1);
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

// --- Status ---

std::vector<PeerStatus> ReplicationSourceImpl::Peers() const {
  std::map<std::string, PeerStatus> connected;  // by slot
  core_.ForEachSession([&connected](ServedSession& session) {
    PeerStatus status;
    if (session.Describe(&status)) connected[status.slot] = status;
  });
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  const Lsn durable = live == nullptr ? 0 : live->spool().end().lsn;
  std::vector<PeerStatus> peers;
  for (const slots::Slot& slot : core_.slots.List()) {
    PeerStatus status;
    const auto found = connected.find(slot.name);
    if (found != connected.end()) {
      status = found->second;
    } else {
      status.slot = slot.name;
      status.state = "disconnected";
      status.received_lsn = slot.flushed_lsn;
      // What it has applied beyond that is not known any more.
      status.applied_lsn = std::max(slot.applied_lsn, slot.flushed_lsn);
    }
    status.kind = slot.kind;
    status.flushed_lsn = std::max(status.flushed_lsn, slot.flushed_lsn);
    if (slot.kind == slots::SlotKind::kReplica) status.node_id = slot.name;
    if (status.applied_lsn < durable) {
      status.lag_records = durable - status.applied_lsn;
      status.lag_bytes = live->spool().BytesBehind(status.applied_lsn);
    }
    peers.push_back(std::move(status));
  }
  return peers;
}

std::vector<SlotStatus> ReplicationSourceImpl::Slots() const {
  double bytes_per_second = 0;
  {
    MutexLock lock(&mutex_);
    bytes_per_second = bytes_per_second_;
  }
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  std::vector<SlotStatus> list;
  for (const slots::Slot& slot : core_.slots.List()) list.push_back(StatusOf(slot, live.get(), bytes_per_second));
  return list;
}

SlotStatus ReplicationSourceImpl::StatusOf(const slots::Slot& slot, LogAndState* live, double bytes_per_second) const {
  SlotStatus status;
  status.slot = slot;
  const bool lost = slot.state == slots::SlotState::kInvalidated || live == nullptr ||
                    slot.data_generation != live->number() || slot.confirmed_lsn + 1 < live->spool().stats().first_lsn;
  if (lost) {
    status.health = "lost";
    return status;
  }
  const uint64_t most = core_.slots.limits().max_retained_bytes;
  status.retained_bytes = live->spool().BytesBehind(slot.confirmed_lsn);
  status.headroom_bytes = most - std::min(most, status.retained_bytes);
  status.health = status.headroom_bytes < most / 4 ? "at_risk" : "reserved";
  if (bytes_per_second > 0) {
    status.headroom_seconds = static_cast<double>(status.headroom_bytes) / bytes_per_second;
  }
  return status;
}

ResyncCounters ReplicationSourceImpl::Counters() const { return core_.counters(); }

void ReplicationSourceImpl::EndSessions(const absl::Status& status) {
  core_.ForEachSession([&status](ServedSession& session) { session.End(status); });
}

std::unique_ptr<ReplicationSource> NewReplicationSource(SourceHost& host, slots::SlotTable& slots, Clock& clock, Rng&,
                                                        Logger& logger, SourceOptions options) {
  return std::make_unique<ReplicationSourceImpl>(host, slots, clock, logger, std::move(options));
}

}  // namespace towline
