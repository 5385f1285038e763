#include "server/peer_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "primary/pull_protocol.h"

namespace towline {
namespace {

// One member that does not answer must not use up the time of the others.
constexpr int64_t kAskMicros = 500'000;
constexpr int64_t kRoundMicros = 100'000;  // between two rounds of questions

}  // namespace

PeerStanding ComparePeer(const NodeView& node, Lsn durable_lsn, const v1::PullStart& peer) {
  const absl::StatusOr<ResumeRequest> request = DecodeStart(peer);
  if (!request.ok() || request->protocol_version != kPullProtocolVersion) return PeerStanding::kOther;
  if (request->cluster_id.empty() && request->lsn == 0) return PeerStanding::kNotAhead;
  if (request->cluster_id != node.cluster_id || !IsValidHistory(request->history)) return PeerStanding::kOther;
  const Term last = request->history.empty() ? 0 : request->history.back().term;
  if (std::max(last, request->promised_term) > node.term) return PeerStanding::kHigherTerm;
  const Lsn common = LastCommonLsn(request->history, request->lsn, node.history, durable_lsn);
  return request->lsn > durable_lsn && common == durable_lsn ? PeerStanding::kAhead : PeerStanding::kNotAhead;
}

PeerCheck::PeerCheck(const NodeView& node, Lsn durable_lsn, std::vector<MemberInfo> members, int64_t wait_micros,
                     AskPeer ask, Clock& clock, Logger& logger)
    : node_(node),
      durable_lsn_(durable_lsn),
      members_(std::move(members)),
      ask_(std::move(ask)),
      clock_(clock),
      logger_(logger),
      deadline_micros_(clock.MonotonicMicros() + wait_micros) {}

bool PeerCheck::Step(Verdict* verdict) {
  while (next_ < members_.size() && (members_[next_].address.empty() || WasHeard(members_[next_].node_id))) ++next_;
  const int64_t left = deadline_micros_ - clock_.MonotonicMicros();
  if (next_ == members_.size() || left <= 0) {
    next_ = 0;
    const bool all = std::all_of(members_.begin(), members_.end(),
                                 [this](const MemberInfo& member) { return WasHeard(member.node_id); });
    if (!all && left > 0) return false;
    TellOfSilent();
    verdict->open = true;
    return true;
  }
  const MemberInfo& member = members_[next_++];
  const absl::StatusOr<v1::PullStart> peer = ask_(member.address, std::min(kAskMicros, left));
  if (!peer.ok() || peer->slot() != member.node_id) return false;
  const std::string numbers =
      absl::StrCat(member.node_id, " at ", member.address, " holds LSN ", peer->lsn(), " and has promised term ",
                   peer->promised_term(), "; this primary holds LSN ", durable_lsn_, " of term ", node_.term);
  switch (ComparePeer(node_, durable_lsn_, *peer)) {
    case PeerStanding::kNotAhead:
      Heard(member.node_id);
      return false;
    case PeerStanding::kOther:
      logger_.Log(LogLevel::kWarning, "peer_not_understood", {{"node", member.node_id}, {"message", numbers}});
      Heard(member.node_id);
      return false;
    case PeerStanding::kAhead:
      *verdict = {false, "replica_ahead", numbers};
      return true;
    case PeerStanding::kHigherTerm:
      *verdict = {false, "stale_primary", numbers};
      return true;
  }
  return false;
}

int64_t PeerCheck::pause_micros() const { return next_ == 0 ? kRoundMicros : 0; }

void PeerCheck::Heard(const std::string& node_id) {
  MutexLock lock(&mutex_);
  heard_.insert(node_id);
}

bool PeerCheck::WasHeard(const std::string& node_id) const {
  MutexLock lock(&mutex_);
  return heard_.contains(node_id);
}

void PeerCheck::TellOfSilent() const {
  for (const MemberInfo& member : members_) {
    if (WasHeard(member.node_id)) continue;
    logger_.Log(LogLevel::kWarning, "peer_not_heard",
                {{"node", member.node_id},
                 {"address", member.address},
                 {"next_action", "writes open without it; if it is gone for good: towctl member remove"}});
  }
}

}  // namespace towline
