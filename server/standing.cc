#include "server/standing.h"

#include <string>

#include "common/history.h"
#include "server/position_proto.h"

namespace towline {
namespace {

v1::SlotKind ToProto(slots::SlotKind kind) {
  return kind == slots::SlotKind::kReplica ? v1::SLOT_KIND_REPLICA : v1::SLOT_KIND_CONSUMER;
}

void FillSlots(Node& node, LogAndState& live, v1::Standing* standing) {
  const Lsn first = live.spool().stats().first_lsn;
  for (const slots::Slot& slot : node.slots().List()) {
    if (slot.temporary) continue;
    v1::SlotStanding* const out = standing->add_slots();
    out->set_name(slot.name);
    out->set_kind(ToProto(slot.kind));
    out->set_confirmed_lsn(slot.confirmed_lsn);
    out->set_servable(!slot.invalidation.has_value() && slot.confirmed_lsn + 1 >= first);
  }
}

}  // namespace

v1::Standing DescribeStanding(Node& node) {
  // The role first: what it holds may only be more by then.
  const bool writable = node.CheckWritable().ok();
  const Control control = node.control().Get();
  const NodeView view = node.View();
  v1::Standing standing;
  standing.set_node_id(control.node_id);
  standing.set_incarnation(control.incarnation);
  standing.set_cluster_id(control.cluster_id);
  standing.set_is_primary(node.is_primary());
  standing.set_writable(writable);
  std::string reason;
  standing.set_state(node.State(&reason));
  standing.set_exact(view.exact);
  standing.set_promised_term(control.promised_term);
  standing.set_promised_candidate(control.promised_candidate);
  standing.set_address(node.advertised_address());
  standing.set_primary_address(view.primary_address);
  standing.set_min_replicas(control.members.min_replicas);
  standing.set_recovery_required(control.recovery == RecoveryState::kRecoveryRequired);
  for (const MemberInfo& member : control.members.members) {
    v1::Member* const out = standing.add_members();
    out->set_node_id(member.node_id);
    out->set_incarnation(member.incarnation);
    out->set_address(member.address);
    out->set_counting(member.counting);
  }
  if (const auto replica = node.ReplicaStatus()) standing.set_primary_durable_lsn(replica->upstream_durable_lsn);
  const auto live = node.Live();
  if (live == nullptr) return standing;
  const wal::LogEnd end = live->spool().end();
  standing.set_lsn(end.lsn);
  standing.set_chain(end.chain);
  standing.set_first_retained_lsn(live->spool().stats().first_lsn);
  standing.set_applied_lsn(live->applier().applied_lsn());
  const History history = CutAt(control.history, end.lsn);
  for (const HistoryEntry& entry : history) FillHistoryEntry(entry, standing.add_history());
  if (!history.empty() && history.back() == control.history.back()) standing.set_term_primary(control.term_primary);
  FillSlots(node, *live, &standing);
  return standing;
}

}  // namespace towline
