#include "server/common_lsn.h"

#include <algorithm>

namespace towline {

Lsn CommonLsn(const std::vector<PeerStatus>& peers, const MemberList& members) {
  Lsn common = 0;
  bool any = false;
  for (const PeerStatus& peer : peers) {
    if (!peer.connected || peer.kind != slots::SlotKind::kReplica) continue;
    const auto is_it = [&](const MemberInfo& member) { return member.node_id == peer.node_id && member.counting; };
    if (std::none_of(members.members.begin(), members.members.end(), is_it)) continue;
    common = any ? std::min(common, peer.flushed_lsn) : peer.flushed_lsn;
    any = true;
  }
  return common;
}

}  // namespace towline
