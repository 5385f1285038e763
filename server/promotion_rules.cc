#include "server/promotion_rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/history.h"

namespace towline {
namespace {

// The standings that were answered, the node's own first.
std::vector<const v1::Standing*> Heard(const PromotionInput& input) {
  std::vector<const v1::Standing*> heard = {&input.self};
  for (const PeerAnswer& peer : input.peers) {
    if (peer.standing.ok()) heard.push_back(&*peer.standing);
  }
  return heard;
}

const v1::Standing& Longest(const PromotionInput& input) {
  const v1::Standing* longest = &input.self;
  for (const v1::Standing* standing : Heard(input)) {
    if (IsAhead(*standing, *longest)) longest = standing;
  }
  return *longest;
}

const v1::Member* FindMember(const google::protobuf::RepeatedPtrField<v1::Member>& members,
                             const std::string& node_id) {
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const v1::Member& each) { return each.node_id() == node_id; });
  return found == members.end() ? nullptr : &*found;
}

// Who was the primary of the newest term; empty = nobody knows.
std::string NewestPrimary(const PromotionInput& input, const v1::Standing& longest) {
  const Term newest = LastTermOf(longest);
  for (const v1::Standing* standing : Heard(input)) {
    if (LastTermOf(*standing) == newest && !standing->term_primary().empty()) return standing->term_primary();
  }
  return "";
}

// Why a node's word does not count; nullptr = it does. It must be the incarnation that the list names, exact, and know
// itself that it was admitted: its log then reaches beyond the record that did so.
const char* WhyUncounted(const v1::Standing& standing, const google::protobuf::RepeatedPtrField<v1::Member>& members) {
  const v1::Member* listed = FindMember(members, standing.node_id());
  if (listed == nullptr) return "which is no member";
  if (listed->incarnation() != standing.incarnation()) return "whose directory was emptied since it was admitted";
  if (!standing.exact()) return "whose state is not exact";
  const v1::Member* own = FindMember(standing.members(), standing.node_id());
  if (own == nullptr || own->incarnation() != standing.incarnation()) {
    return "which has loaded a snapshot, and no primary has named the members to it since";
  }
  return nullptr;
}

uint64_t LostRecords(const PromotionInput& input, const v1::Standing& longest) {
  uint64_t told = 0;
  for (const v1::Standing* standing : Heard(input)) {
    if (LastTermOf(*standing) == LastTermOf(longest)) {
      told = std::max<uint64_t>(told, standing->primary_durable_lsn());
    }
  }
  return told > longest.lsn() ? told - longest.lsn() : 0;
}

void CountQuorums(const PromotionInput& input, const v1::Standing& longest, PromotionVerdict* verdict) {
  const std::string primary = NewestPrimary(input, longest);
  for (const v1::Member& member : longest.members()) {
    ++verdict->members.total;
    if (member.counting() && member.node_id() != primary) ++verdict->counting.total;
  }
  const uint32_t k = std::max<uint32_t>(1, longest.min_replicas());
  verdict->members.needed = verdict->members.total / 2 + 1;
  verdict->counting.needed = verdict->counting.total >= k ? verdict->counting.total - k + 1 : 0;
  for (const v1::Standing* standing : Heard(input)) {
    if (const char* const why = WhyUncounted(*standing, longest.members()); why != nullptr) {
      verdict->uncounted.push_back(absl::StrCat(standing->node_id(), ", ", why));
      continue;
    }
    ++verdict->members.present;
    if (standing->node_id() == primary) {
      verdict->has_primary = !standing->recovery_required();
    } else if (FindMember(longest.members(), standing->node_id())->counting()) {
      ++verdict->counting.present;
    }
  }
  std::sort(verdict->uncounted.begin(), verdict->uncounted.end());
}

}  // namespace

History HistoryOf(const v1::Standing& standing) {
  History history;
  for (const v1::HistoryEntry& entry : standing.history()) {
    history.push_back({static_cast<Term>(entry.term()), entry.start_lsn(), entry.term_id()});
  }
  return history;
}

Term LastTermOf(const v1::Standing& standing) {
  return standing.history().empty() ? 0 : static_cast<Term>(standing.history().rbegin()->term());
}

bool IsAhead(const v1::Standing& a, const v1::Standing& b) {
  return LastTermOf(a) != LastTermOf(b) ? LastTermOf(a) > LastTermOf(b) : a.lsn() > b.lsn();
}

std::vector<v1::Member> OtherMembers(const v1::Standing& self) {
  std::vector<v1::Member> others;
  for (const v1::Member& member : self.members()) {
    if (member.node_id() != self.node_id()) others.push_back(member);
  }
  return others;
}

PromotionVerdict JudgePromotion(const PromotionInput& input) {
  PromotionVerdict verdict;
  const v1::Standing& longest = Longest(input);
  for (const v1::Standing* standing : Heard(input)) {
    verdict.term = std::max({verdict.term, static_cast<Term>(standing->promised_term()), LastTermOf(*standing)});
    verdict.granted.push_back(standing->node_id());
    if (standing->is_primary() && standing->writable()) verdict.alive = standing->node_id();
    if (!IsAhead(*standing, input.self)) continue;
    const Lsn common = LastCommonLsn(HistoryOf(input.self), input.self.lsn(), HistoryOf(*standing), standing->lsn());
    if (common < input.self.lsn()) verdict.diverged = standing->node_id();
  }
  ++verdict.term;
  if (&longest != &input.self) verdict.ahead = longest.node_id();
  for (const PeerAnswer& peer : input.peers) {
    if (!peer.standing.ok()) {
      verdict.absent.push_back(absl::StrCat(peer.node_id, ": ", GetErrorInfo(peer.standing.status()).message));
    }
  }
  std::sort(verdict.granted.begin(), verdict.granted.end());
  std::sort(verdict.absent.begin(), verdict.absent.end());
  CountQuorums(input, longest, &verdict);
  verdict.known_lost_records = LostRecords(input, longest);
  return verdict;
}

absl::Status CheckPromotion(const PromotionInput& input, const PromotionVerdict& verdict, bool force) {
  const auto refuse = [](absl::string_view reason, std::string message, absl::string_view next_action) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason, message, next_action);
  };
  const std::string& node_id = input.self.node_id();
  if (!input.self.exact()) {
    return refuse("not_exact", absl::StrCat("the state of ", node_id, " is not exactly a prefix of its log"),
                  "promote another node, or wait until its bootstrap is over");
  }
  if (FindMember(input.self.members(), node_id) == nullptr && !input.self.members().empty()) {
    return refuse("not_a_member", absl::StrCat(node_id, " is not in the newest list of members that it knows"),
                  "promote a member; towctl member list shows them");
  }
  if (verdict.diverged && !force) {
    return refuse("peer_diverged",
                  absl::StrCat(*verdict.diverged, " holds records of a newer line that ", node_id,
                               " cannot take without going back first"),
                  absl::StrCat("promote ", *verdict.diverged));
  }
  if (force) return absl::OkStatus();
  if (verdict.alive) {
    return refuse("primary_alive", absl::StrCat(*verdict.alive, " is the primary and takes writes"),
                  absl::StrCat("hand over without loss: towctl switchover --to ", node_id,
                               "; or promote with --force, which gives up what only ", *verdict.alive, " holds"));
  }
  if (verdict.has_quorum()) return absl::OkStatus();
  std::string missing = absl::StrCat(verdict.members.present, " of ", verdict.members.total,
                                     " members answered, needed ", verdict.members.needed);
  if (!verdict.has_primary) {
    absl::StrAppend(&missing, "; ", verdict.counting.present, " of ", verdict.counting.total,
                    " counting replicas answered, needed ", verdict.counting.needed);
  }
  if (!verdict.uncounted.empty()) {
    absl::StrAppend(&missing, "; does not count: ", absl::StrJoin(verdict.uncounted, "; "));
  }
  if (!verdict.absent.empty()) absl::StrAppend(&missing, "; no answer from ", absl::StrJoin(verdict.absent, ", "));
  return refuse("no_quorum", missing,
                "bring the absent members back, or promote with --force, which may lose acknowledged writes");
}

std::vector<std::string> LossOf(const PromotionInput& input, const PromotionVerdict& verdict) {
  std::vector<std::string> loss;
  if (!verdict.has_primary) {
    loss.push_back("writes of level local that no member here had received from the old primary");
  }
  if (verdict.known_lost_records != 0) {
    loss.push_back(absl::StrCat("at least ", verdict.known_lost_records,
                                " records that the old primary had when it was heard last"));
  }
  if (!verdict.has_primary && !verdict.counting.met()) {
    loss.push_back(absl::StrCat("acknowledged writes of level replicas: only ", verdict.counting.present, " of ",
                                verdict.counting.total, " counting replicas answered, needed ",
                                verdict.counting.needed));
  }
  if (!verdict.members.met()) {
    loss.push_back(absl::StrCat("the certainty that nobody else is promoted: only ", verdict.members.present, " of ",
                                verdict.members.total, " members answered, needed ", verdict.members.needed));
  }
  if (verdict.alive && *verdict.alive != input.self.node_id()) {
    loss.push_back(absl::StrCat("what ", *verdict.alive, ", which is alive, takes until it is fenced"));
  }
  if (verdict.diverged) {
    loss.push_back(absl::StrCat("records that only ", *verdict.diverged, " holds, on a newer line"));
  }
  return loss;
}

}  // namespace towline
