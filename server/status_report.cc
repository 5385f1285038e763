#include "server/status_report.h"

#include <algorithm>
#include <vector>

#include "server/forecast_report.h"
#include "server/position_proto.h"
#include "server/version.h"

namespace towline {

v1::SlotKind ToProto(slots::SlotKind kind) {
  return kind == slots::SlotKind::kReplica ? v1::SLOT_KIND_REPLICA : v1::SLOT_KIND_CONSUMER;
}

v1::SlotState ToProto(slots::SlotState state) {
  switch (state) {
    case slots::SlotState::kActive:
      return v1::SLOT_STATE_ACTIVE;
    case slots::SlotState::kInactive:
      return v1::SLOT_STATE_INACTIVE;
    case slots::SlotState::kBootstrapping:
      return v1::SLOT_STATE_BOOTSTRAPPING;
    case slots::SlotState::kRewinding:
      return v1::SLOT_STATE_REWINDING;
    case slots::SlotState::kInvalidated:
      return v1::SLOT_STATE_INVALIDATED;
  }
  return v1::SLOT_STATE_UNSPECIFIED;
}

namespace {

v1::SlotHealth HealthToProto(const std::string& health) {
  if (health == "reserved") return v1::SLOT_HEALTH_RESERVED;
  if (health == "at_risk") return v1::SLOT_HEALTH_AT_RISK;
  return v1::SLOT_HEALTH_LOST;
}

double Percentile(std::vector<float> values, double p) {
  const size_t index = std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index), values.end());
  return values[index];
}

void FillScrub(const wal::ScrubStats& stats, v1::WalScrub* out) {
  out->set_passes(stats.passes);
  out->set_bytes(stats.bytes);
  out->set_indexes_rebuilt(stats.indexes_rebuilt);
  if (stats.passes == 0) return;
  out->set_last_pass_end_seconds(static_cast<double>(stats.last_pass_end_us) / 1e6);
  out->set_last_pass_duration_seconds(static_cast<double>(stats.last_pass_micros) / 1e6);
  out->set_last_pass_bytes(stats.last_pass_bytes);
  out->set_last_pass_segments(stats.last_pass_segments);
  out->set_last_pass_damages(stats.last_pass_damages);
}

void FillWal(Node& node, LogAndState& live, v1::WalStatus* out) {
  const wal::SpoolStats stats = live.spool().stats();
  out->set_first_lsn(stats.first_lsn);
  out->set_durable_lsn(stats.durable_lsn);
  out->set_committed_lsn(node.CommittedLsn());
  out->set_retained_bytes(stats.retained_bytes);
  out->set_segments(stats.segments);
  out->set_fsync_total(stats.fsyncs);
  if (stats.fsyncs != 0) out->set_fsync_mean_seconds(stats.fsync_seconds_sum / static_cast<double>(stats.fsyncs));
  if (!stats.fsync_recent_seconds.empty()) {
    out->set_fsync_p50_seconds(Percentile(stats.fsync_recent_seconds, 0.5));
    out->set_fsync_p99_seconds(Percentile(stats.fsync_recent_seconds, 0.99));
  }
  for (const wal::DamagedRange& range : stats.damaged) {
    v1::WalDamage* const damage = out->add_damaged();
    damage->set_first_lsn(range.first_lsn);
    damage->set_last_lsn(range.last_lsn);
    damage->set_readable(range.readable);
    damage->set_file(range.file);
    damage->set_offset(range.offset);
    damage->set_what(range.what);
  }
  FillScrub(stats.scrub, out->mutable_scrub());
}

void FillStore(LogAndState& live, v1::StoreStatus* out) {
  out->set_applied_lsn(live.applier().applied_lsn());
  const auto persisted = live.state().PersistedLsn();
  out->set_persisted_lsn(persisted.ok() ? *persisted : 0);
  out->set_estimated_keys(live.state().store().Stats().estimated_keys);
}

void FillPeer(const PeerStatus& peer, v1::ReplicaStatus* out) {
  out->set_node_id(peer.node_id);
  out->set_slot(peer.slot);
  out->set_state(peer.state);
  out->set_sent_lsn(peer.sent_lsn);
  out->set_received_lsn(peer.received_lsn);
  out->set_flushed_lsn(peer.flushed_lsn);
  out->set_applied_lsn(peer.applied_lsn);
  for (const StageLag& lag : peer.stages) {
    v1::StageLag* const stage = out->add_stages();
    stage->set_stage(lag.stage);
    stage->set_records(lag.records);
    stage->set_bytes(lag.bytes);
    if (lag.seconds) stage->set_seconds(*lag.seconds);
  }
  const StageLag& applied = peer.stages.back();
  out->set_lag_records(applied.records);
  out->set_lag_bytes(applied.bytes);
  if (applied.seconds) out->set_lag_seconds(*applied.seconds);
}

void FillResync(const ResyncCounters& counters, v1::ResyncStatus* out) {
  out->set_partial_total(counters.partial_total);
  out->set_full_total(counters.full_total);
  out->set_rewind_total(counters.rewind_total);
  out->set_refused_total(counters.refused_total);
  for (const auto& [reason, count] : counters.by_reason) (*out->mutable_by_reason())[reason] = count;
  for (const auto& [reason, count] : counters.consumers_by_reason) {
    (*out->mutable_consumers_by_reason())[reason] = count;
  }
  for (const auto& [cause, count] : counters.invalidations_by_cause) (*out->mutable_invalidations())[cause] = count;
  out->set_superseded_sessions(counters.superseded_sessions);
  out->set_stalls(counters.stalls);
}

// At this rate; nullopt = not known.
std::optional<double> SecondsLeft(uint64_t bytes, uint64_t estimated_bytes, double bytes_per_second) {
  if (estimated_bytes == 0 || bytes_per_second <= 0) return std::nullopt;
  const uint64_t left = estimated_bytes - std::min(bytes, estimated_bytes);
  return static_cast<double>(left) / bytes_per_second;
}

void FillSnapshotSend(const SnapshotSend& send, v1::SnapshotSendStatus* out) {
  out->set_slot(send.slot);
  out->set_snapshot_id(send.snapshot_id);
  out->set_lsn(send.lsn);
  out->set_keys(send.keys);
  out->set_bytes(send.bytes);
  out->set_estimated_bytes(send.estimated_bytes);
  out->set_bytes_per_second(send.bytes_per_second);
  out->set_elapsed_seconds(send.elapsed_seconds);
  out->set_resumed(send.resumed);
  const auto eta = SecondsLeft(send.bytes, send.estimated_bytes, send.bytes_per_second);
  if (eta.has_value()) out->set_eta_seconds(*eta);
}

void FillReplicaSide(Node& node, const ReplicaStatusView& status, v1::GetStatusResponse* out) {
  out->mutable_upstream()->set_endpoint(node.UpstreamEndpoint());
  out->mutable_upstream()->set_state(status.upstream_state);
  out->mutable_upstream()->set_message(status.message);
  if (!status.bootstrap) return;
  v1::BootstrapStatus* const bootstrap = out->mutable_bootstrap();
  const BootstrapProgress& progress = *status.bootstrap;
  bootstrap->set_phase(progress.phase);
  bootstrap->set_reason(progress.reason);
  bootstrap->set_keys(progress.keys);
  bootstrap->set_bytes(progress.bytes);
  bootstrap->set_durable_bytes(progress.durable_bytes);
  bootstrap->set_estimated_keys(progress.estimated_keys);
  bootstrap->set_estimated_bytes(progress.estimated_bytes);
  bootstrap->set_bytes_per_second(progress.bytes_per_second);
  bootstrap->set_resumes(progress.resumes);
  bootstrap->set_bytes_again(progress.received_bytes - std::min(progress.received_bytes, progress.bytes));
  bootstrap->set_lsn(progress.lsn);
  bootstrap->set_exact_from_lsn(progress.exact_from_lsn);
  const int64_t now_ms = node.clock().WallMicros() / 1000;
  const int64_t elapsed_ms = now_ms - static_cast<int64_t>(progress.started_unix_ms);
  bootstrap->set_elapsed_seconds(static_cast<double>(std::max<int64_t>(elapsed_ms, 0)) / 1e3);
  const auto eta = SecondsLeft(progress.bytes, progress.estimated_bytes, progress.bytes_per_second);
  if (eta.has_value()) bootstrap->set_eta_seconds(*eta);
}

void FillRewind(const RewindCheckpointStats& stats, const RewindTotals& totals, v1::RewindStatus* out) {
  for (const RewindCheckpoint& checkpoint : stats.kept) out->add_checkpoint_lsns(checkpoint.lsn);
  out->set_common_lsn(stats.common_lsn);
  out->set_checkpoints_made(stats.made);
  out->set_checkpoints_given_up(stats.given_up);
  out->set_rewinds_total(totals.rewinds);
  out->set_discarded_records_total(totals.discarded_records);
  out->set_not_possible_total(totals.not_possible);
  if (totals.rewinds == 0) return;
  v1::LastRewind* const last = out->mutable_last();
  last->set_common_lsn(totals.last.common_lsn);
  last->set_old_lsn(totals.last.old_lsn);
  last->set_checkpoint_lsn(totals.last.checkpoint_lsn);
  last->set_discarded_records(totals.last.discarded_records);
  last->set_quarantine_file(totals.last.quarantine_file);
  last->set_seconds(totals.last.seconds);
}

void FillMember(const MemberInfo& member, v1::Member* out) {
  out->set_node_id(member.node_id);
  out->set_incarnation(member.incarnation);
  out->set_address(member.address);
  out->set_counting(member.counting);
}

void FillCommit(Node& node, PrimaryRole& role, v1::CommitStatus* out) {
  const CommitStats stats = role.commit().stats();
  const FlowStats flow = role.flow().stats();
  out->set_default_replicas(static_cast<uint32_t>(node.config().durability_replicas));
  out->set_default_stage(node.config().durability_stage);
  out->set_counting_members(stats.counting_members);
  out->set_acking_members(stats.acking_members);
  out->set_waiters(stats.waiters);
  out->set_timeouts_total(stats.timeouts_total);
  out->set_degraded(stats.degraded);
  out->set_degraded_first_lsn(stats.degraded_first_lsn);
  out->set_degraded_last_lsn(stats.degraded_last_lsn);
  if (const auto live = node.Live(); live != nullptr && stats.exposed_from_lsn < stats.exposed_to_lsn) {
    const uint64_t from = live->spool().BytesBehind(stats.exposed_from_lsn);
    out->set_exposed_bytes(from - std::min(from, live->spool().BytesBehind(stats.exposed_to_lsn)));
    out->set_exposed_seconds(stats.exposed_seconds);
  }
  out->set_flow(FlowStateName(flow.state));
  out->set_flow_lag_bytes(flow.lag_bytes);
}

}  // namespace

void FillSlot(const SlotStatus& status, v1::Slot* out) {
  const slots::Slot& slot = status.slot;
  out->set_name(slot.name);
  out->set_kind(ToProto(slot.kind));
  out->set_state(ToProto(slot.state));
  out->set_health(HealthToProto(status.health));
  out->set_generation(slot.generation);
  out->set_confirmed_lsn(slot.confirmed_lsn);
  out->set_received_lsn(slot.received_lsn);
  out->set_flushed_lsn(slot.flushed_lsn);
  out->set_applied_lsn(slot.applied_lsn);
  out->set_retained_bytes(status.retained_bytes);
  out->set_headroom_bytes(status.headroom_bytes);
  if (status.headroom_seconds) out->set_headroom_seconds(*status.headroom_seconds);
  if (slot.invalidation) {
    v1::SlotInvalidation* const invalidation = out->mutable_invalidation();
    invalidation->set_cause(slot.invalidation->cause);
    invalidation->set_at_lsn(slot.invalidation->at_lsn);
    invalidation->set_at_time_ms(slot.invalidation->at_time_ms);
    invalidation->set_needed_lsn(slot.invalidation->needed_lsn);
    invalidation->set_oldest_lsn(slot.invalidation->oldest_lsn);
  }
  out->set_created_time_ms(slot.created_time_ms);
  out->set_last_active_time_ms(slot.last_active_time_ms);
  out->set_temporary(slot.temporary);
  out->set_origin(slot.origin);
}

void FillStatus(Node& node, v1::GetStatusResponse* out) {
  const NodeView view = node.View();
  out->set_cluster_id(view.cluster_id);
  out->set_node_id(view.node_id);
  out->set_role(view.is_primary ? "primary" : "replica");
  out->set_state(node.State(out->mutable_state_reason()));
  out->set_exact(view.exact);
  out->set_term(view.term);
  for (const HistoryEntry& entry : view.history) FillHistoryEntry(entry, out->add_history());
  for (const MemberInfo& member : view.members.members) FillMember(member, out->add_members());
  out->set_min_replicas(view.members.min_replicas);
  if (node.primary() != nullptr) FillCommit(node, *node.primary(), out->mutable_commit());
  out->mutable_wal();
  out->mutable_store();
  if (const auto live = node.Live()) {
    FillWal(node, *live, out->mutable_wal());
    FillStore(*live, out->mutable_store());
  }
  const std::shared_ptr<Generation> generation = node.LiveGeneration();
  const auto status = node.ReplicaStatus();
  FillRewind(generation == nullptr ? RewindCheckpointStats() : generation->checkpoints().stats(),
             status ? status->rewinds : RewindTotals(), out->mutable_rewind());
  if (status) {
    FillReplicaSide(node, *status, out);
    for (const std::string& node_id : view.upstream_path) out->mutable_upstream()->add_path(node_id);
  }
  for (const PeerStatus& peer : node.source().Peers()) {
    FillPeer(peer, peer.kind == slots::SlotKind::kReplica ? out->add_replicas() : out->add_consumers());
  }
  for (const SlotStatus& slot : node.source().Slots()) FillSlot(slot, out->add_slots());
  FillResync(node.source().Counters(), out->mutable_resync());
  for (const SnapshotSend& send : node.source().Snapshots().sends) FillSnapshotSend(send, out->add_snapshots());
  out->set_version(kVersion);
  out->set_uptime_seconds(static_cast<double>(node.clock().MonotonicMicros() - node.started_micros()) / 1e6);
  out->set_record_bytes_max(node.config().limits_record_bytes);
  const Control control = node.control().Get();
  out->set_promised_term(control.promised_term);
  out->set_promised_candidate(control.promised_candidate);
  out->set_min_replicas(control.members.min_replicas);
  for (v1::RoleChange& change : node.RoleChanges()) out->add_role_changes()->Swap(&change);
  if (const Forecast forecast = node.source().ForecastNode(); forecast.disk) {
    FillDisk(*forecast.disk, node.config(), out->mutable_disk());
  }
}

void FillTopology(Node& node, v1::GetTopologyResponse* out) {
  const NodeView view = node.View();
  out->set_cluster_id(view.cluster_id);
  out->set_term(view.term);
  out->set_primary_address(view.primary_address);
  out->set_primary_node_id(node.PrimaryNode());
  for (const MemberInfo& member : view.members.members) {
    FillMember(member, out->add_members());
    const bool is_it = !view.primary_address.empty() && member.address == view.primary_address;
    if (out->primary_node_id().empty() && is_it) out->set_primary_node_id(member.node_id);
  }
}

}  // namespace towline
