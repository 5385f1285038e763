#include "primary/commit_members.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "common/failpoint.h"

namespace towline {
namespace {

// The counting entry of a node, or nullptr.
const MemberInfo* FindCounting(const MemberList& list, const std::string& node_id) {
  const auto found = std::find_if(list.members.begin(), list.members.end(), [&node_id](const MemberInfo& member) {
    return member.counting && member.node_id == node_id;
  });
  return found == list.members.end() ? nullptr : &*found;
}

}  // namespace

CommitMembers::CommitMembers(std::string self, MemberList list, Lsn opened_lsn) : self_(std::move(self)) {
  rules_.push_back({std::move(list), opened_lsn});
  Rebuild();
}

void CommitMembers::Add(const MemberList& list, Lsn lsn) {
  rules_.push_back({list, lsn});
  Rebuild();
  Settle();
}

void CommitMembers::Confirm(const std::string& node_id, uint64_t incarnation, Lsn flushed_lsn, Lsn applied_lsn) {
  Holder& holder = holders_[node_id];
  if (holder.incarnation != incarnation) holder = {incarnation, 0, 0};
  holder.flushed_lsn = std::max(holder.flushed_lsn, flushed_lsn);
  holder.applied_lsn = std::max(holder.applied_lsn, std::min(applied_lsn, flushed_lsn));
  if (rules_.size() > 1) Settle();
}

bool CommitMembers::Holds(const MemberInfo& member, Lsn lsn) const {
  const auto found = holders_.find(member.node_id);
  return found != holders_.end() && found->second.incarnation == member.incarnation && found->second.flushed_lsn >= lsn;
}

// A node that came back with another data directory: what it had promised or held is gone.
bool CommitMembers::Replaced(const MemberInfo& member) const {
  return std::any_of(rules_.begin(), rules_.end(), [&member](const Rule& rule) {
    return std::any_of(rule.list.members.begin(), rule.list.members.end(), [&member](const MemberInfo& other) {
      return other.node_id == member.node_id && other.incarnation != member.incarnation;
    });
  });
}

// Whether nodes that do not hold `lsn` could promote somebody by `rule`: a majority of its members, and N - k + 1 of
// its N counting replicas.
bool CommitMembers::QuorumWithout(const Rule& rule, Lsn lsn) const {
  size_t members = 1;  // this node, which holds it
  size_t replicas = 0;
  size_t others = 0;
  size_t other_replicas = 0;
  for (const MemberInfo& member : rule.list.members) {
    if (member.node_id == self_) continue;
    ++members;
    replicas += member.counting;
    if (Holds(member, lsn) || Replaced(member)) continue;
    ++others;
    other_replicas += member.counting;
  }
  if (replicas == 0) return false;
  const size_t k = std::min<size_t>(std::max<uint32_t>(1, rule.list.min_replicas), replicas);
  return others >= members / 2 + 1 && other_replicas >= replicas - k + 1;
}

// Lets the newest record that has met every quorum before it take effect.
void CommitMembers::Settle() {
  for (size_t i = rules_.size() - 1; i > 0; --i) {
    const auto before = rules_.begin() + static_cast<std::ptrdiff_t>(i);
    const Lsn lsn = before->lsn;
    if (std::any_of(rules_.begin(), before, [this, lsn](const Rule& rule) { return QuorumWithout(rule, lsn); })) {
      continue;
    }
    rules_.erase(rules_.begin(), before);
    Rebuild();
    return;
  }
}

void CommitMembers::Rebuild() {
  const Rule& newest = rules_.back();
  min_replicas_ = 0;
  for (const Rule& rule : rules_) min_replicas_ = std::max(min_replicas_, rule.list.min_replicas);
  std::map<std::string, std::pair<uint64_t, Lsn>> admitted;
  counted_.clear();
  counting_ = 0;
  for (const MemberInfo& member : newest.list.members) {
    if (!member.counting || member.node_id == self_) continue;
    ++counting_;
    const auto known = admitted_.find(member.node_id);
    const bool same = known != admitted_.end() && known->second.first == member.incarnation;
    const Lsn admitted_lsn = same ? known->second.second : newest.lsn;
    admitted[member.node_id] = {member.incarnation, admitted_lsn};
    const bool everywhere = std::all_of(rules_.begin(), rules_.end(), [&member](const Rule& rule) {
      const MemberInfo* const entry = FindCounting(rule.list, member.node_id);
      return entry != nullptr && entry->incarnation == member.incarnation;
    });
    if (everywhere) counted_.push_back({&holders_[member.node_id], member.incarnation, admitted_lsn});
  }
  admitted_ = std::move(admitted);
}

Lsn CommitMembers::PositionOf(const Counted& member, CommitStage stage) {
  const Holder& holder = *member.holder;
  const bool counts = holder.incarnation == member.incarnation && holder.flushed_lsn >= member.admitted_lsn;
  if (!counts && !Failpoint("commit_count_stale_ack")) return 0;
  return stage == CommitStage::kFlushed ? holder.flushed_lsn : holder.applied_lsn;
}

Lsn CommitMembers::Watermark(uint32_t replicas, CommitStage stage) const {
  if (replicas > counted_.size()) return 0;
  std::vector<Lsn> positions;
  positions.reserve(counted_.size());
  for (const Counted& member : counted_) positions.push_back(PositionOf(member, stage));
  const auto at = positions.begin() + (replicas - 1);
  std::nth_element(positions.begin(), at, positions.end(), std::greater<>());
  return *at;
}

AchievedLevel CommitMembers::HoldersOf(Lsn lsn) const {
  AchievedLevel achieved;
  for (const Counted& member : counted_) {
    achieved.flushed += PositionOf(member, CommitStage::kFlushed) >= lsn;
    achieved.applied += PositionOf(member, CommitStage::kApplied) >= lsn;
  }
  return achieved;
}

bool CommitMembers::Counts(const std::string& node_id, uint64_t incarnation) const {
  const auto found = admitted_.find(node_id);
  return found != admitted_.end() && found->second.first == incarnation;
}

}  // namespace towline
